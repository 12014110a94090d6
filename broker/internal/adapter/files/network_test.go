package files_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/adapter/files"
	"github.com/shallot-net/shallot/kit/fault"
)

func wantReason(t *testing.T, err error, reason string, inText ...string) {
	t.Helper()
	f := fault.From(err)
	if f == nil || f.Reason != reason {
		t.Errorf("got %v, want %s", err, reason)
		return
	}
	for _, s := range inText {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%v does not name %s", err, s)
		}
	}
}

func TestNetworkKey(t *testing.T) {
	parse := func(r io.Reader) ([]byte, error) {
		b, _ := io.ReadAll(r)
		if string(b) != "good" {
			return nil, errors.New("no key")
		}
		return b, nil
	}
	path := filepath.Join(t.TempDir(), "network.key")
	if key, err := files.NetworkKey(path, false, parse); key != nil || err != nil {
		t.Errorf("no file: %v, %v", key, err)
	}
	_, err := files.NetworkKey(path, true, parse)
	wantReason(t, err, "NETWORK_KEY_UNREADABLE", path)
	for _, c := range []struct {
		text   string
		mode   os.FileMode
		reason string
	}{{"good", 0o644, "NETWORK_KEY_EXPOSED"}, {"torn", 0o600, "NETWORK_KEY_BROKEN"}, {"", 0o600, "NETWORK_KEY_BROKEN"}} {
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := files.NetworkKey(path, false, parse)
		wantReason(t, err, c.reason, path)
	}
	if err := os.WriteFile(path, []byte("good"), 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err := files.NetworkKey(path, true, parse); err != nil || string(key) != "good" {
		t.Errorf("got %q, %v", key, err)
	}
}

func TestAHomeStaysInItsNetwork(t *testing.T) {
	dir := t.TempDir()
	a, b := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	for _, key := range [][]byte{nil, nil, a, a} { // open, then private
		if err := files.ClaimNetwork(dir, key); err != nil {
			t.Fatal(err)
		}
	}
	wantReason(t, files.ClaimNetwork(dir, nil), "NETWORK_KEY_MISSING", dir)
	wantReason(t, files.ClaimNetwork(dir, b), "NETWORK_MISMATCH", dir)
	said, err := os.ReadFile(filepath.Join(dir, "network"))
	if err != nil || bytes.Contains(said, a) || len(said) > 20 {
		t.Errorf("the mark is %q, %v", said, err)
	}
}
