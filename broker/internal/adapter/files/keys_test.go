package files_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/adapter/files"
	"github.com/shallot-net/shallot/kit/fault"
)

func newKeys(t *testing.T) (*files.Keys, string) {
	t.Helper()
	dir := t.TempDir()
	k, err := files.NewKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k, dir
}

func TestKeysAreKept(t *testing.T) {
	k, dir := newKeys(t)
	if _, _, err := k.Load(""); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	own, at, err := k.Create("")
	if err != nil || len(own) != 32 || at.IsZero() {
		t.Fatalf("got %d bytes, %v", len(own), err)
	}
	if again, _, err := k.Create(""); err != nil || !bytes.Equal(again, own) {
		t.Errorf("the second Create changed the key: %v", err)
	}
	other, err := files.NewKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := other.Load(""); err != nil || !bytes.Equal(again, own) {
		t.Errorf("after a restart: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "identity.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}
}

func TestPersonasKeys(t *testing.T) {
	k, _ := newKeys(t)
	seen := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		seed, _, err := k.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		seen[string(seed)] = true
	}
	names, err := k.List()
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"a", "b"}) || len(seen) != 2 {
		t.Errorf("got %v, %v, %d keys", names, err, len(seen))
	}
	if err := k.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if err := k.Remove("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if names, _ := k.List(); !slices.Equal(names, []string{"b"}) {
		t.Errorf("got %v", names)
	}
}

func TestBadKeyFiles(t *testing.T) {
	rsaLike := "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQ==\n-----END PRIVATE KEY-----\n"
	k, dir := newKeys(t)
	if _, _, err := k.Create(""); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "identity.pem")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content []byte
		mode    fs.FileMode
		reason  string
	}{
		"torn":     {good[:len(good)/2], 0o600, "KEY_BROKEN"},
		"empty":    {nil, 0o600, "KEY_BROKEN"},
		"twice":    {append(slices.Clone(good), good...), 0o600, "KEY_BROKEN"},
		"no key":   {[]byte(rsaLike), 0o600, "KEY_BROKEN"},
		"exposed":  {good, 0o644, "KEY_EXPOSED"},
		"enormous": {bytes.Repeat([]byte("x"), 1<<20), 0o600, "KEY_BROKEN"},
	} {
		if err := os.WriteFile(path, c.content, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := k.Create("")
		if f := fault.From(err); f == nil || f.Reason != c.reason || !strings.Contains(f.Message, path) {
			t.Errorf("%s: got %v, want %s that names the file", name, err, c.reason)
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, c.content) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestModeIsForEver(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := files.ClaimMode(dir, "open"); err != nil {
			t.Fatal(err)
		}
	}
	err := files.ClaimMode(dir, "anonymous")
	if f := fault.From(err); f == nil || f.Reason != "MODE_MISMATCH" || !strings.Contains(f.Message, dir) {
		t.Errorf("got %v", err)
	}
}
