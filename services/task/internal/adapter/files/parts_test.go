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
	name, _ := partOf(data)
	return keepAs(t, c, name, data)
}

func keepAs(t *testing.T, c *Parts, name string, data []byte) (string, func()) {
	t.Helper()
	f, err := c.Create()
	noErr(t, err)
	defer f.Drop()
	_, err = f.Write(data)
	noErr(t, err)
	_, p := partOf(data)
	path, release, err := f.Keep(name, p)
	noErr(t, err)
	return path, release
}

// onDisk counts what is in a folder of parts, and complains of what does not belong there.
func onDisk(t *testing.T, dir string) (copies, names int) {
	t.Helper()
	es, err := os.ReadDir(dir)
	noErr(t, err)
	for _, e := range es {
		_, isCopy := parseHash(e.Name())
		_, _, isName := cutMark(e.Name())
		switch {
		case isCopy:
			copies++
		case isName:
			names++
		default:
			t.Errorf("%s was left", e.Name())
		}
	}
	return copies, names
}

// One content has one copy, under however many names it is known, and counts once. To know its hash is not enough to find it.
func TestOneCopyOfOneContent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := NewParts(dir, 2500)
	noErr(t, err)
	data := bytes.Repeat([]byte("x"), 1000)
	_, p := partOf(data)
	nameOf := func(i int) string { return domain.Hash(sha256.Sum256([]byte{byte(i), byte(i >> 8)})).String() }
	found := func(i int) bool {
		_, release, err := c.Find(nameOf(i), p)
		if err == nil {
			release()
		}
		return err == nil
	}
	for i := range 5 {
		if found(i) {
			t.Fatalf("the name %d is known before it has been shown to be of the content", i)
		}
		_, release := keepAs(t, c, nameOf(i), data)
		release()
	}
	for range 2 {
		if copies, names := onDisk(t, dir); copies != 1 || names != 5 || c.bytes != 1000 {
			t.Fatalf("%d copies with %d names count as %d bytes", copies, names, c.bytes)
		}
		for i := range 5 {
			if !found(i) {
				t.Errorf("the name %d is not known any more", i)
			}
		}
		c, err = NewParts(dir, 2500) // a restart
		noErr(t, err)
	}
	if _, _, err := c.Find(nameOf(0), domain.Part{Size: 1000, SHA256: domain.Hash{1}}); !errors.Is(err, app.ErrNotFound) {
		t.Errorf("a name with the hash of something else: %v", err)
	}
	// A copy that is in use stays until it is not, and goes with all its names.
	_, using, err := c.Find(nameOf(1), p)
	noErr(t, err)
	for i := range byte(4) {
		_, release := keepPart(t, c, bytes.Repeat([]byte{i}, 1000))
		release()
	}
	if !found(0) {
		t.Error("what is in use is gone")
	}
	noErr(t, os.WriteFile(filepath.Join(dir, nameOf(7)+"."+p.SHA256.String()), nil, 0o600)) // of a copy that is not there any more, below
	using()
	for i := range byte(2) {
		_, release := keepPart(t, c, bytes.Repeat([]byte{10 + i}, 1000))
		release()
	}
	if found(0) || found(1) {
		t.Error("what was not used longest is there")
	}
	c, err = NewParts(dir, 2500)
	noErr(t, err)
	if copies, names := onDisk(t, dir); copies != 2 || names != 2 || c.bytes != 2000 {
		t.Errorf("%d copies with %d names count as %d bytes", copies, names, c.bytes)
	}
}

// Names have a bound of their own, because they cost room where their bytes do not; bytes without a name go.
func TestNamesOfPartsHaveABound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := NewParts(dir, 1<<20)
	noErr(t, err)
	c.maxNames = 16
	first, held := keepPart(t, c, []byte("used first, and not any more"))
	second, release := keepPart(t, c, []byte("used second"))
	release()
	for i := range 100 {
		_, release := keepAs(t, c, domain.Hash(sha256.Sum256([]byte{1, byte(i)})).String(), []byte("one content"))
		release()
	}
	if _, names := onDisk(t, dir); names > 16 || names < 12 {
		t.Errorf("%d names are known", names)
	}
	if _, err := os.Stat(second); err == nil {
		t.Error("what has no name any more is there")
	}
	if _, err := os.Stat(first); err != nil {
		t.Error("what is in use is gone")
	}
	held()
	if _, err := os.Stat(first); err == nil {
		t.Error("what has no name any more is there after it was used")
	}
	if copies, _ := onDisk(t, dir); copies != 1 || c.bytes != int64(len("one content")) {
		t.Errorf("%d copies count as %d bytes", copies, c.bytes)
	}
}

// A copy that a crash has torn is made good by whoever brings the content again, under whatever name.
func TestATornCopyIsMadeGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := NewParts(dir, 1<<20)
	noErr(t, err)
	data := bytes.Repeat([]byte("x"), 1000)
	path, release := keepPart(t, c, data)
	release()
	noErr(t, os.Chmod(path, 0o600))
	noErr(t, os.WriteFile(path, data[:999], 0o600))
	c, err = NewParts(dir, 1<<20)
	noErr(t, err)
	_, release = keepAs(t, c, domain.Hash{1}.String(), data)
	release()
	name, p := partOf(data)
	path, release, err = c.Find(name, p)
	noErr(t, err)
	defer release()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) || c.bytes != 1000 {
		t.Errorf("%d bytes, %v; %d count", len(got), err, c.bytes)
	}
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
	if copies, names := onDisk(t, dir); copies != 1 || names != 1 {
		t.Fatalf("after a restart there are %d copies with %d names", copies, names)
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
	if copies, names := onDisk(t, dir); copies != 2 || names != 2 {
		t.Fatalf("there are %d copies with %d names", copies, names)
	}
	release()
	zero, _ := partOf(data(0))
	noErr(t, os.Chtimes(filepath.Join(dir, zero+"."+filepath.Base(inUse)), time.Unix(1, 0), time.Unix(1, 0)))
	c, err = NewParts(dir, 1500) // a smaller bound: the one used last stays
	noErr(t, err)
	_, done, err = c.Find(name, p)
	noErr(t, err)
	done()
	if copies, names := onDisk(t, dir); copies != 1 || names != 1 {
		t.Fatalf("there are %d copies with %d names", copies, names)
	}
}
