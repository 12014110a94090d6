package tree

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteIsWholeOrNothing(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, fill := range map[string]func(File, io.Writer) error{
		"fails at once": func(File, io.Writer) error { return broken },
		"fails at the end": func(f File, w io.Writer) error {
			_, err := io.WriteString(w, "123")
			return errors.Join(err, fails(f.Path == "b/c", broken))
		},
		"too short": func(_ File, w io.Writer) error { _, err := io.WriteString(w, "12"); return err },
		"too long":  func(_ File, w io.Writer) error { _, err := io.WriteString(w, "1234"); return err },
	} {
		parent := t.TempDir()
		out := filepath.Join(parent, "out")
		if err := Write(out, []File{{"a", 3}, {"b/c", 3}}, []string{"e/f"}, fill); err == nil {
			t.Errorf("%s: no error", name)
		}
		if left := names(t, parent); len(left) != 0 {
			t.Errorf("%s: %v is left", name, left)
		}
		if err := os.Mkdir(out, 0o700); err != nil { // an empty one may be there
			t.Fatal(err)
		}
		if err := Write(out, []File{{"a", 3}, {"b/c", 3}}, []string{"e/f"}, func(_ File, w io.Writer) error { _, err := io.WriteString(w, "123"); return err }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: the directory that was there was private: %v, %v", name, info, err)
		}
		if got := names(t, filepath.Join(out, "e", "f")); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
		if b, err := os.ReadFile(filepath.Join(out, "b", "c")); err != nil || string(b) != "123" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// A new directory is as the user's umask has it.
func TestUmaskHolds(t *testing.T) { // not beside others: it is the process's
	before := syscall.Umask(0o077)
	defer syscall.Umask(before)
	out := filepath.Join(t.TempDir(), "out")
	if err := Write(out, []File{{"a/b", 0}}, nil, func(File, io.Writer) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{".": 0o700, "a": 0o700, "a/b": 0o600} {
		if info, err := os.Stat(filepath.Join(out, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s is %v, %v", path, info.Mode(), err)
		}
	}
}

func fails(yes bool, err error) error {
	if yes {
		return err
	}
	return nil
}

// A name that becomes a link between the listing and the reading does not lead out.
func TestOpenStaysInside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := List(dir, Options{MaxFiles: 1})
	if err != nil || len(l.Files) != 1 {
		t.Fatal(l, err)
	}
	defer l.Close()
	if err := errors.Join(os.Remove(filepath.Join(dir, "a")), os.Symlink("/etc/passwd", filepath.Join(dir, "a"))); err != nil {
		t.Fatal(err)
	}
	if f, err := l.Open(l.Files[0]); err == nil {
		t.Errorf("%s was opened", f.Name())
	}
}

func TestHiddenFilesAreCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, p := range []string{".git/x", "a/.b", "a/c"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o700), os.WriteFile(filepath.Join(dir, p), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := List(dir, Options{MaxFiles: 10})
	if err != nil || len(l.Files) != 1 || l.Files[0].Path != "a/c" || l.Hidden != 2 {
		t.Errorf("%+v, %v", l, err)
	}
	l.Close()
	l, err = List(dir, Options{MaxFiles: 10, Hidden: true})
	if err != nil || len(l.Files) != 3 || l.Hidden != 0 || !strings.HasPrefix(l.Files[0].Path, ".git") {
		t.Errorf("%+v, %v", l, err)
	}
	l.Close()
}
