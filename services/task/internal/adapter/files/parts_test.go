package files

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func partOf(data []byte) (string, domain.Part) {
	sum := sha256.Sum256(data)
	name := sha256.Sum256(append([]byte("name"), sum[:]...))
	return hex.EncodeToString(name[:]), domain.Part{Name: "module", Size: int64(len(data)), SHA256: sum}
}

func keepPart(t *testing.T, c *Parts, data []byte) (string, func()) {
	t.Helper()
	f, err := c.Create()
	noErr(t, err)
	defer f.Drop()
	_, err = f.Write(data)
	noErr(t, err)
	name, _ := partOf(data)
	path, release, err := f.Keep(name)
	noErr(t, err)
	return path, release
}

func TestPartsAreKeptAndFound(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "parts")
	c, err := NewParts(dir, 1<<20)
	noErr(t, err)
	data := bytes.Repeat([]byte("x"), 1000)
	_, release := keepPart(t, c, data)
	release()
	release() // once is enough
	unfinished, err := c.Create()
	noErr(t, err)
	_, _ = unfinished.Write(data)

	name, p := partOf(data)
	for range 2 {
		path, release, err := c.Find(name, p)
		noErr(t, err)
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if info, _ := os.Stat(path); info.Mode().Perm() != 0o400 {
			t.Fatalf("the mode is %v", info.Mode())
		}
		release()
		c, err = NewParts(dir, 1<<20) // a restart
		noErr(t, err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Fatalf("after a restart there are %v", es)
	}
	other, q := partOf([]byte("other"))
	if _, _, err := c.Find(other, q); !errors.Is(err, app.ErrNotFound) {
		t.Fatalf("what nobody has kept: %v", err)
	}
}

func TestTornPartsAreNotFound(t *testing.T) {
	t.Parallel()
	for name, tear := range map[string]func(path string, b []byte) error{
		"shorter": func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)-1], 0o600) },
		"empty":   func(path string, _ []byte) error { return os.Truncate(path, 0) },
		"zeroes":  func(path string, b []byte) error { return os.WriteFile(path, make([]byte, len(b)), 0o600) },
		"gone":    func(path string, _ []byte) error { return os.Remove(path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c, err := NewParts(dir, 1<<20)
			noErr(t, err)
			data := bytes.Repeat([]byte("x"), 1000)
			path, release := keepPart(t, c, data)
			release()
			noErr(t, os.Chmod(path, 0o600))
			noErr(t, tear(path, data))
			c, err = NewParts(dir, 1<<20)
			noErr(t, err)
			id, p := partOf(data)
			if _, _, err := c.Find(id, p); !errors.Is(err, app.ErrNotFound) {
				t.Fatalf("a torn part: %v", err)
			}
			_, release = keepPart(t, c, data) // and it can be had again
			release()
			_, release, err = c.Find(id, p)
			noErr(t, err)
			release()
		})
	}
}

func TestPartsStayWithinTheirBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := NewParts(dir, 2500)
	noErr(t, err)
	data := func(i byte) []byte { return bytes.Repeat([]byte{i}, 1000) }
	inUse, release := keepPart(t, c, data(0))
	for i := byte(1); i < 6; i++ {
		_, done := keepPart(t, c, data(i))
		done()
	}
	if _, err := os.Stat(inUse); err != nil {
		t.Fatalf("a part that is in use is gone: %v", err)
	}
	name, p := partOf(data(5))
	_, done, err := c.Find(name, p)
	noErr(t, err)
	done()
	if es, _ := os.ReadDir(dir); len(es) != 2 {
		t.Fatalf("there are %d parts", len(es))
	}
	release()
	noErr(t, os.Chtimes(inUse, time.Unix(1, 0), time.Unix(1, 0)))
	c, err = NewParts(dir, 1500) // a smaller bound: the one used last stays
	noErr(t, err)
	_, done, err = c.Find(name, p)
	noErr(t, err)
	done()
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Fatalf("there are %d parts", len(es))
	}
}
