package files_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/files"
	"github.com/shallot-net/shallot/broker/internal/domain/book"
)

func TestBookIsKept(t *testing.T) {
	dir := t.TempDir()
	b := files.NewBook(dir)
	if got, err := b.Load(); err != nil || len(got) != 0 {
		t.Fatalf("a new book has %v, %v", got, err)
	}
	want := []book.Entry{{Peer: "a", Addresses: []string{"/1", "/2"}, At: time.Unix(1, 0).UTC()}}
	if err := b.Save(want); err != nil {
		t.Fatal(err)
	}
	if got, err := files.NewBook(dir).Load(); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v", got, err)
	}
	path := filepath.Join(dir, "peers.json")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v: it says whom this node knows", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte(`[{"peer":"a","addr`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Load(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a torn book: %v", err)
	}
}
