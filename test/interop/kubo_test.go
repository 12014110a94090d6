package interop

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// noise is n bytes that do not compress and differ from seed to seed.
func noise(seed byte, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n)
}

func sum(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	h := sha256.New()
	if err := write(h); err != nil {
		t.Fatal(err)
	}
	return hexOf(h)
}

func hexOf(h hash.Hash) string { return fmt.Sprintf("%x", h.Sum(nil)) }

func sumOf(t *testing.T, r io.Reader) string {
	t.Helper()
	return sum(t, func(w io.Writer) error { _, err := io.Copy(w, r); return err })
}

func sumOfFile(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return sumOf(t, f)
}

// sizes are of files that are one block, several, and several levels of them.
func sizes() []int64 {
	all := []int64{0, 1, mib, mib + 1, 32*mib + 17}
	if long() {
		all = append(all, gib)
	}
	return all
}

// What the broker put, Kubo reads, writes to a file and pins.
func TestKuboReadsOurs(t *testing.T) {
	k, b := startKubo(t), startBroker(t)
	b.connect(t, k)
	for i, n := range sizes() {
		cid := b.put(t, noise(byte(i), n))
		want := sumOf(t, noise(byte(i), n))
		out := filepath.Join(t.TempDir(), "out")
		if _, err := k.Run(t.Context(), nil, "get", "-o", out, cid); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if got := sumOfFile(t, out); got != want {
			t.Errorf("%d bytes: ipfs get wrote others", n)
		}
		if n <= mib+1 {
			got, err := k.Run(t.Context(), nil, "cat", cid)
			want, _ := io.ReadAll(noise(byte(i), n))
			if err != nil || got != strings.TrimSpace(string(want)) {
				t.Errorf("%d bytes: ipfs cat printed %d, error %v", n, len(got), err)
			}
		}
		if _, err := k.Run(t.Context(), nil, "pin", "add", cid); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// The same file has the same name on both sides, when Kubo is told to lay files out as its profile of 2025 does.
func TestSameNames(t *testing.T) {
	k, b := startKubo(t), startBroker(t)
	for i, n := range sizes() {
		ours := b.put(t, noise(byte(i), n))
		theirs, err := k.Run(t.Context(), noise(byte(i), n), "add", "-Q", "--only-hash", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576", "--max-file-links=1024")
		if err != nil {
			t.Fatal(err)
		}
		if ours != theirs {
			t.Errorf("%d bytes are %s here and %s there", n, ours, theirs)
		}
	}
}

// The same directory has the same name on both sides, and what was put here is whole there: also one with more names than a block has room for.
func TestSameNamesOfDirectories(t *testing.T) {
	k, b := startKubo(t), startBroker(t)
	b.connect(t, k)
	dir := filepath.Join(t.TempDir(), "tree")
	want := writeTree(t, dir)
	if err := os.MkdirAll(filepath.Join(dir, "no", "files"), 0o755); err != nil {
		t.Fatal(err)
	}
	crowd(t, dir, 1200, "%0200d", want)
	ours := b.putTree(t, dir)
	theirs, err := k.Run(t.Context(), nil, "add", "-Q", "-r", "--only-hash", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576", "--max-file-links=1024", dir)
	if err != nil {
		t.Fatal(err)
	}
	if ours != theirs {
		t.Errorf("the directory is %s here and %s there", ours, theirs)
	}
	out := filepath.Join(t.TempDir(), "out")
	if _, err := k.Run(t.Context(), nil, "get", "-o", out, ours); err != nil {
		t.Fatal(err)
	}
	compareTree(t, out, want)
}

// crowd makes a directory of many files.
func crowd(t *testing.T, dir string, n int, format string, want map[string]string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "crowded"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		name := fmt.Sprintf("crowded/"+format, i)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		want[name] = sumOf(t, strings.NewReader(name))
	}
}

// What Kubo added as a directory can be listed here, and its files be read by their paths.
func TestWeReadKubosDirectories(t *testing.T) {
	k := startKubo(t)
	dir := filepath.Join(t.TempDir(), "tree")
	want := writeTree(t, dir)
	crowd(t, dir, 1200, "%0200d", want)
	for _, args := range [][]string{{"--cid-version=1"}, {"--cid-version=0", "--raw-leaves=false", "--chunker=size-4096"}} {
		b := startBroker(t)
		b.dial(t, k)
		cid, err := k.Run(t.Context(), nil, append(append([]string{"add", "-Q", "-r"}, args...), dir)...)
		if err != nil {
			t.Fatal(err)
		}
		got := b.list(t, cid)
		if len(got) != len(want) || got["deep/er/still/large"] != 2*mib+3 {
			t.Errorf("%v: %d files of %d", args, len(got), len(want))
		}
		for _, name := range []string{"readme", "empty", "deep/er/still/large", "many/007", "with spaces and ümläuts", fmt.Sprintf("crowded/%0200d", 17)} {
			if h := sum(t, func(w io.Writer) error { return b.get(t.Context(), &brokerv1.GetRequest{Cid: cid, Path: name}, w) }); h != want[name] {
				t.Errorf("%v: %s has other bytes", args, name)
			}
		}
	}
}

// layouts are ways in which Kubo makes blocks of a file.
var layouts = map[string][]string{
	"as it comes":       nil,
	"version 0, dag-pb": {"--cid-version=0", "--raw-leaves=false"},
	"version 1, dag-pb": {"--cid-version=1", "--raw-leaves=false"},
	"raw":               {"--cid-version=1", "--raw-leaves"},
	"rabin":             {"--chunker=rabin", "--raw-leaves"},
	"rabin, dag-pb":     {"--chunker=rabin-16384-65536-131072", "--raw-leaves=false"},
	"buzhash":           {"--chunker=buzhash"},
	"size-1000":         {"--chunker=size-1000"},
	"size-1048576":      {"--chunker=size-1048576"},
	"trickle":           {"--trickle"},
	"blake2b":           {"--hash=blake2b-256"},
	"inline":            {"--inline", "--inline-limit=64"},
}

// What Kubo added, the broker streams, and pins whole: it has all of it when Kubo is gone.
func TestWeReadKubos(t *testing.T) {
	k, b := startKubo(t), startBroker(t)
	b.dial(t, k)
	type kept struct{ name, cid, want string }
	var all []kept
	check := func(name string, seed byte, n int64, args ...string) {
		cid, err := k.Run(t.Context(), noise(seed, n), append([]string{"add", "-Q"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		want := sumOf(t, noise(seed, n))
		got := sum(t, func(w io.Writer) error { return b.get(t.Context(), &brokerv1.GetRequest{Cid: cid}, w) })
		if got != want {
			t.Errorf("%s, %d bytes: others came", name, n)
		}
		all = append(all, kept{fmt.Sprintf("%s, %d bytes", name, n), cid, want})
	}
	seed := byte(0)
	for name, args := range layouts {
		for _, n := range []int64{0, 50, 3*mib + 5} {
			seed++
			check(name, seed, n, args...)
		}
	}
	for i, n := range sizes() {
		check("large", byte(100+i), n)
	}
	// Pinned before anything was read of it, too.
	cid, err := k.Run(t.Context(), noise(99, 5*mib), "add", "-Q")
	if err != nil {
		t.Fatal(err)
	}
	if size := b.pin(t, cid); size != 5*mib {
		t.Errorf("pinned %d bytes of %d", size, 5*mib)
	}
	all = append(all, kept{"pinned unread", cid, sumOf(t, noise(99, 5*mib))})
	for _, f := range all {
		b.pin(t, f.cid)
	}
	if err := k.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		got := sum(t, func(w io.Writer) error { return b.get(t.Context(), &brokerv1.GetRequest{Cid: f.cid, Local: true}, w) })
		if got != f.want {
			t.Errorf("%s: what was pinned is not what was added", f.name)
		}
	}
}

// A directory that one Kubo added and the broker pinned is whole at another Kubo that knows the broker alone.
func TestDirectoryThroughUs(t *testing.T) {
	first, second, b := startKubo(t), startKubo(t), startBroker(t)
	b.dial(t, first)
	dir := filepath.Join(t.TempDir(), "tree")
	want := writeTree(t, dir)
	for _, args := range [][]string{{"--cid-version=1"}, {"--cid-version=0", "--raw-leaves=false", "--chunker=size-4096"}} {
		cid, err := first.Run(t.Context(), nil, append(append([]string{"add", "-Q", "-r"}, args...), dir)...)
		if err != nil {
			t.Fatal(err)
		}
		b.pin(t, cid)
		st, err := b.repository.Stat(t.Context(), &brokerv1.StatRequest{Cid: cid, Local: true})
		if err != nil || st.GetKind() != "directory" || !st.GetLocal() {
			t.Errorf("of the pinned directory is known %v, error %v", st, err)
		}
		b.connect(t, second)
		out := filepath.Join(t.TempDir(), "out")
		if _, err := second.Run(t.Context(), nil, "get", "-o", out, cid); err != nil {
			t.Fatal(err)
		}
		if _, err := second.Run(t.Context(), nil, "pin", "add", cid); err != nil {
			t.Error(err)
		}
		compareTree(t, out, want)
	}
}

// writeTree makes a directory with some hundred files, and returns their hashes by path.
func writeTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	want := map[string]string{}
	add := func(name string, seed byte, n int64) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(noise(seed, n))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		want[name] = sumOfFile(t, path)
	}
	add("readme", 1, 100)
	add("empty", 2, 0)
	add("with spaces and ümläuts", 3, 10)
	add("deep/er/still/large", 4, 2*mib+3)
	for i := range 300 {
		add(fmt.Sprintf("many/%03d", i), byte(i), int64(i))
	}
	return want
}

func compareTree(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		found++
		if got := sumOfFile(t, path); got != want[name] {
			t.Errorf("%s has other bytes", name)
		}
		return nil
	})
	if err != nil || found != len(want) {
		t.Errorf("%d files of %d, error %v", found, len(want), err)
	}
}

// The connection stays: identify and bitswap are what Kubo expects, and nobody hangs up on the other.
func TestConnectionStays(t *testing.T) {
	k, b := startKubo(t), startBroker(t)
	b.connect(t, k)
	connected := func() bool {
		out, err := k.Run(t.Context(), nil, "swarm", "peers")
		return err == nil && strings.Contains(out, b.id)
	}
	if !connected() {
		t.Fatal("Kubo has no connection to the broker")
	}
	protocols, err := k.Run(t.Context(), nil, "id", "-f", "<protocols>", b.id)
	if err != nil || !strings.Contains(protocols, "/ipfs/bitswap/1.2.0") {
		t.Errorf("the broker says that it speaks %q, error %v", protocols, err)
	}
	// A want that is answered late keeps both at it.
	late := make(chan error, 1)
	go func() {
		const cid = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq" // the five bytes "hello"
		_, err := k.Run(t.Context(), nil, "cat", cid)
		late <- err
	}()
	eventually(t, time.Minute, "Kubo wants a block", func() bool {
		out, err := k.Run(t.Context(), nil, "bitswap", "wantlist")
		return err == nil && out != ""
	})
	b.put(t, strings.NewReader("hello"))
	if err := <-late; err != nil || !connected() {
		t.Errorf("a block that was put after it was asked for: %v", err)
	}
}
