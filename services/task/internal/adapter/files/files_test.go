package files

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestResultsAreWholeOrNotThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, err := NewResults(filepath.Join(dir, "results"))
	noErr(t, err)
	dropped, err := r.Create("a")
	noErr(t, err)
	_, _ = dropped.Write([]byte("half"))
	dropped.Drop()
	if _, _, err := r.Open("a"); !errors.Is(err, fault.NotFound("RESULT_GONE", "")) {
		t.Fatalf("a dropped result: %v", err)
	}
	f, err := r.Create("a")
	noErr(t, err)
	_, err = f.Write([]byte("whole"))
	noErr(t, err)
	noErr(t, f.Keep())
	f.Drop() // nothing
	at, closer, err := r.Open("a")
	noErr(t, err)
	b := make([]byte, 5)
	if _, err := at.ReadAt(b, 0); err != nil || string(b) != "whole" {
		t.Fatalf("%q, %v", b, err)
	}
	noErr(t, closer.Close())
	if info, err := os.Stat(filepath.Join(dir, "results", "a")); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the mode is %v", info.Mode())
	}
	left, err := r.Create("b") // a crash leaves it
	noErr(t, err)
	_, _ = left.Write([]byte("x"))
	r.Sweep()
	if es, _ := os.ReadDir(filepath.Join(dir, "results")); len(es) != 1 {
		t.Fatalf("after the sweep there are %v", es)
	}
	r.Remove("a")
	if _, _, err := r.Open("a"); err == nil {
		t.Fatal("it was removed")
	}
}

func TestUploads(t *testing.T) {
	t.Parallel()
	u, err := NewUploads(filepath.Join(t.TempDir(), "uploads"), time.Hour, 12)
	noErr(t, err)
	up, err := u.Create()
	noErr(t, err)
	_, err = up.Write([]byte("hello"))
	noErr(t, err)
	id, size, sum, err := up.Keep()
	if err != nil || size != 5 {
		t.Fatal(size, err)
	}
	p, err := u.Find(id)
	if err != nil || p.Size != 5 || p.SHA256 != sum {
		t.Fatalf("%+v, %v", p, err)
	}
	if b, err := os.ReadFile(p.Path); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
	for _, bad := range []string{"", "../../../../etc/passwd", strings.Repeat("*", 32), strings.Repeat("0", 32), strings.Repeat("?", 32)} {
		if _, err := u.Find(bad); !errors.Is(err, fault.NotFound("UPLOAD_NOT_FOUND", "")) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	more, err := u.Create()
	noErr(t, err)
	if _, err := more.Write(make([]byte, 8)); !errors.Is(err, fault.ResourceExhausted("UPLOADS_FULL", "")) {
		t.Fatalf("13 bytes of 12: %v", err)
	}
	_, err = more.Write(make([]byte, 7))
	noErr(t, err)
	more.Drop()
	again, err := u.Create()
	noErr(t, err)
	_, err = again.Write(make([]byte, 7))
	noErr(t, err)
	again.Drop()
	u.Expire(time.Now().Add(59 * time.Minute))
	if _, err := u.Find(id); err != nil {
		t.Fatal(err)
	}
	u.Expire(time.Now().Add(61 * time.Minute))
	if _, err := u.Find(id); err == nil {
		t.Fatal("it has expired")
	}
}

func TestLogKeepsItsEnd(t *testing.T) {
	t.Parallel()
	l, err := NewLogs(filepath.Join(t.TempDir(), "logs"))
	noErr(t, err)
	all := bytes.Repeat([]byte("0123456789"), 500_000) // 5 MB
	for i := 0; i < len(all); i += 30_000 {
		end := min(i+30_000, len(all))
		noErr(t, l.Append("t.1", int64(i), all[i:end]))
		noErr(t, l.Append("t.1", int64(i), all[i:end]))                         // repeated
		noErr(t, l.Append("t.1", int64(max(i-500, 0)), all[max(i-500, 0):end])) // overlapping
	}
	var got []byte
	b := make([]byte, 70_000)
	offset := int64(0)
	first := int64(-1)
	for {
		n, next, err := l.Read("t.1", offset, b)
		noErr(t, err)
		if n == 0 {
			break
		}
		if first < 0 {
			first = next - int64(n)
		}
		got = append(got, b[:n]...)
		offset = next
	}
	if len(got) < maxLog || len(got) > 2*maxLog+30_000 || !bytes.Equal(got, all[first:]) {
		t.Fatalf("%d bytes are kept from %d", len(got), first)
	}
	noErr(t, l.Append("t.1", 6_000_000, []byte("after a gap")))
	n, next, err := l.Read("t.1", 0, b)
	if err != nil || string(b[:n]) != "after a gap" || next != 6_000_000+int64(n) {
		t.Fatalf("%q up to %d, %v", b[:n], next, err)
	}
	noErr(t, l.Append("t.2", 0, []byte("x")))
	noErr(t, l.Append("tt.1", 0, []byte("y")))
	l.Remove("t")
	for name, want := range map[string]int{"t.1": 0, "t.2": 0, "tt.1": 1, "../x": 0} {
		if n, _, err := l.Read(name, 0, b); err != nil || n != want {
			t.Errorf("%s has %d bytes, %v", name, n, err)
		}
	}
	if l.Append("../x.1", 0, []byte("x")) == nil || l.Append("t.1", -1, nil) == nil {
		t.Error("a bad name or offset")
	}
}

func TestLogsAreFoundAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	l, err := NewLogs(dir)
	noErr(t, err)
	noErr(t, l.Append("a.1", 0, []byte("one")))
	noErr(t, l.Append("b.1", 100, []byte("two")))
	noErr(t, os.WriteFile(filepath.Join(dir, "b.1@50"), []byte("cut off in a trim"), 0o600))
	noErr(t, os.WriteFile(filepath.Join(dir, "c.1@-5"), []byte("not one of ours"), 0o600))
	l, err = NewLogs(dir)
	noErr(t, err)
	noErr(t, l.Append("b.1", 103, []byte("three")))
	b := make([]byte, 100)
	for name, want := range map[string]string{"a.1": "one", "b.1": "twothree", "c.1": ""} {
		if n, _, err := l.Read(name, 0, b); err != nil || string(b[:n]) != want {
			t.Errorf("%s is %q, %v", name, b[:n], err)
		}
	}
	noErr(t, os.Remove(filepath.Join(dir, "a.1@0")))
	if n, _, err := l.Read("a.1", 0, b); n != 0 || err != nil {
		t.Errorf("what somebody removed: %d bytes, %v", n, err)
	}
	noErr(t, l.Append("a.1", 3, []byte("more")))
	l.Remove("a")
	l.Remove("b")
	left, err := os.ReadDir(dir)
	if noErr(t, err); len(left) != 1 || left[0].Name() != "c.1@-5" {
		t.Errorf("left: %v", left)
	}
}

func TestWorkspaceIsEmptiedAndPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "work")
	noErr(t, os.MkdirAll(filepath.Join(dir, "left"), 0o700))
	w, err := NewWorkspace(dir)
	noErr(t, err)
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Fatal("what a crash left is still there")
	}
	d, remove, err := w.Make()
	noErr(t, err)
	if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("the mode is %v", info.Mode())
	}
	noErr(t, os.WriteFile(filepath.Join(d, "f"), nil, 0o600))
	remove()
	if _, err := os.Stat(d); err == nil {
		t.Fatal("it was not removed")
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	noErr(t, os.WriteFile(file, nil, 0o600))
	for _, err := range []error{second(NewResults(filepath.Join(file, "x"))), second(NewUploads(filepath.Join(file, "x"), 1, 1)), second(NewLogs(filepath.Join(file, "x"))), second(NewWorkspace(filepath.Join(file, "x")))} {
		if err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("the error is %v", err)
		}
	}
	full := named(&os.PathError{Op: "write", Path: file, Err: io.ErrShortWrite}, "write", file)
	if full == nil {
		t.Error("no error")
	}
}

func second[T any](_ T, err error) error { return err }
