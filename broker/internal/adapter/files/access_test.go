package files_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/files"
	"github.com/shallot-net/shallot/broker/internal/domain/access"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

func TestAccessIsReadAgainWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := home.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := files.NewAccess(dir, func(s string) (string, error) {
		if strings.Contains(s, " ") {
			return "", errors.New("no")
		}
		return s, nil
	})
	if l, err := a.Load(); err != nil || !l.Admits("anybody") {
		t.Fatalf("without files: %v, %v", l, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan access.Lists, 8), make(chan error, 1)
	go func() {
		done <- a.Watch(ctx, time.Millisecond, slog.New(slog.DiscardHandler), func(l access.Lists) { changes <- l })
	}()
	next := func(what string) access.Lists {
		t.Helper()
		select {
		case l := <-changes:
			return l
		case <-time.After(time.Minute):
			t.Fatal("not noticed: " + what)
			panic("unreachable")
		}
	}
	write("peers.deny", "bad\n")
	if l := next("a peer is denied"); l.Admits("bad") || !l.Admits("good") {
		t.Errorf("one denied: %v", l)
	}
	write("peers.deny", "not a peer\n") // changes nothing
	write("peers.allow", "good\n")
	select {
	case l := <-changes:
		if l.Admits("bad") { // read between the two writes, at worst
			t.Errorf("a list that is not valid was taken for an empty one: %v", l)
		}
	case <-time.After(100 * time.Millisecond):
	}
	write("peers.deny", "bad\nworse\n")
	var l access.Lists
	for l = next("the list is mended"); !l.Restricted || l.Admits("good") == l.Admits("worse"); {
		l = next("both lists")
	}
	if err := os.Remove(filepath.Join(dir, "peers.allow")); err != nil {
		t.Fatal(err)
	}
	if l := next("a list is removed"); l.Restricted || l.Admits("bad") || !l.Admits("other") {
		t.Errorf("without the list: %v", l)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAccessErrorsNameTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "peers.allow")
	if err := os.WriteFile(path, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := files.NewAccess(dir, func(string) (string, error) { return "", errors.New("no") }).Load()
	if f := fault.From(err); f == nil || f.Reason != "ACCESS_INVALID" || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("got %v", err)
	}
}
