package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/app/content/contenttest"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

const (
	crashDir  = "SHALLOT_TEST_CRASH_DIR"
	crashSeed = "SHALLOT_TEST_CRASH_SEED"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		seed, _ := strconv.ParseUint(os.Getenv(crashSeed), 10, 64)
		if err := busy(dir, seed); err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// A block's bytes follow from its number, its name from its bytes. A pin's CID is its block's number.
func numbered(n uint64) app.Block { return contenttest.Block(contenttest.Data(n, 200+int(n%37)*2500)) }

func links(cid string, _ func(string) ([]byte, error)) (app.Node, error) {
	n, err := strconv.ParseUint(cid, 10, 64)
	return app.Node{Key: numbered(n).Key}, err
}

// busy puts, pins, unpins and collects until it is killed, and prints what it was told is done.
func busy(dir string, seed uint64) error {
	s, err := Open(Config{Dir: dir, PackSize: 2 << 20})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(word string, n uint64) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(word, n)
	}
	fail := make(chan error, 4)
	col := app.NewCollector(app.CollectorConfig{Store: s, Links: links, Now: time.Now})
	go func() {
		for {
			if _, err := col.Collect(context.Background()); err != nil {
				fail <- err
			}
		}
	}()
	for w := range uint64(3) {
		go func() {
			r := rand.New(rand.NewPCG(seed, w))
			for i := uint64(0); ; i++ {
				n := seed*1_000_000 + w*100_000 + i
				p := content.Pin{CID: strconv.FormatUint(n, 10), Owner: "w"}
				if err := s.Commit(app.Change{Blocks: []app.Block{numbered(n)}, Pins: []content.Pin{p}, Durable: r.IntN(4) == 0}); err != nil {
					fail <- err
				}
				say("pinned", n)
				if i > 10 && r.IntN(2) == 0 {
					n -= uint64(r.IntN(10))
					say("unpinning", n)
					if err := s.Commit(app.Change{Unpins: []content.Pin{{CID: strconv.FormatUint(n, 10), Owner: "w"}}}); err != nil {
						fail <- err
					}
				}
			}
		}()
	}
	return <-fail
}

// Killed at any moment, the store opens again, with every pin that was acknowledged and every block that is pinned.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	pinned := make(map[uint64]bool) // acknowledged, and not asked to be lifted
	for round := range rounds {
		runAndKill(t, dir, uint64(round+1), pinned)
		s := open(t, dir)
		for n := range pinned {
			if pins, _, err := s.Pins(strconv.FormatUint(n, 10), "w", "", 1); err != nil || len(pins) != 1 {
				t.Fatalf("round %d: pin %d: %v %v", round, n, pins, err)
			}
		}
		count := 0
		for cursor := ""; ; {
			pins, next, err := s.Pins("", "", cursor, 500)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pins {
				n, _ := strconv.ParseUint(p.CID, 10, 64)
				if _, err := s.Get(numbered(n).Key); err != nil {
					t.Fatalf("round %d: pinned block %d: %v", round, n, err)
				}
				count++
			}
			if cursor = next; next == "" {
				break
			}
		}
		t.Logf("round %d: %d pins, %d MiB in packs", round, count, s.Used()>>20)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func runAndKill(t *testing.T, dir string, seed uint64, pinned map[uint64]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashSeed+"="+strconv.FormatUint(seed, 10))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The moment is counted in what was done, not in time: a slow machine gets as far.
	left := 100 + rand.IntN(400)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		word, num, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.ParseUint(num, 10, 64)
		switch word {
		case "pinned":
			pinned[n] = true
		case "unpinning":
			delete(pinned, n)
		default:
			t.Errorf("the child says %q", lines.Text())
		}
		if left--; left == 0 {
			_ = cmd.Process.Kill() // what it had printed already is still read
		}
	}
	_ = cmd.Wait()
}

// faultyIndex is LevelDB's storage on a disk that fills.
type faultyIndex struct {
	storage.Storage
	full *atomic.Bool
}

type faultyWriter struct {
	storage.Writer
	full *atomic.Bool
}

func (f faultyIndex) Create(fd storage.FileDesc) (storage.Writer, error) {
	if f.full.Load() {
		return nil, syscall.ENOSPC
	}
	w, err := f.Storage.Create(fd)
	return faultyWriter{w, f.full}, err
}

func (f faultyWriter) Write(b []byte) (int, error) {
	if f.full.Load() {
		n, _ := f.Writer.Write(b[:len(b)/2])
		return n, syscall.ENOSPC
	}
	return f.Writer.Write(b)
}

// The disk fills in the middle of the index's journal.
func TestIndexDiskFull(t *testing.T) {
	var isFull atomic.Bool
	disk := newFaultyFS()
	dir := t.TempDir()
	s := open(t, dir, func(c *Config) {
		c.FS = disk
		c.wrapIndex = func(st storage.Storage) storage.Storage { return faultyIndex{st, &isFull} }
	})
	put := func(n uint64) error {
		return s.Commit(app.Change{Blocks: []app.Block{numbered(n)}, Pins: []content.Pin{{CID: strconv.FormatUint(n, 10), Owner: "w"}}})
	}
	const before, after = 2000, 500
	for n := range uint64(before) {
		if err := put(n % 100); err != nil { // the same again and again: the journal grows, the packs do not matter
			t.Fatal(err)
		}
	}
	isFull.Store(true)
	var full *content.FullError
	if err := put(5000); !errors.As(err, &full) || full.Path != dir {
		t.Fatalf("a full disk: %v", err)
	}
	disk.free.Store(0)
	if err := put(5001); !errors.As(err, &full) {
		t.Fatalf("a full disk: %v", err)
	}
	for n := range uint64(100) {
		if _, err := s.Get(numbered(n).Key); err != nil {
			t.Fatalf("reading while the disk is full: %v", err)
		}
	}
	isFull.Store(false)
	disk.free.Store(1 << 40)
	for n := range uint64(after) {
		if err := put(10_000 + n); err != nil {
			t.Fatalf("there is space again: %v", err)
		}
	}
	s = reopen(t, s)
	for _, n := range []uint64{0, 99, 10_000, 10_000 + after - 1} {
		if _, err := s.Get(numbered(n).Key); err != nil {
			t.Errorf("%d: %v", n, err)
		}
		if pins, _, err := s.Pins(strconv.FormatUint(n, 10), "", "", 1); err != nil || len(pins) != 1 {
			t.Errorf("pin %d: %v %v", n, pins, err)
		}
	}
}
