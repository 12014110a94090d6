package repository

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	rtmetrics "runtime/metrics"
	"strconv"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

// raceDetector changes what memory is used for.
var raceDetector bool

const idleEnv = "SHALLOT_TEST_IDLE"

func pss(t testing.TB) int {
	t.Helper()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Skip("proportional memory is not told here")
	}
	m := regexp.MustCompile(`(?m)^Pss:\s+(\d+)`).FindSubmatch(b)
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What an idle repository adds to an idle host, in a process of its own.
func TestIdleMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	if os.Getenv(idleEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestIdleMemory$", "-test.v")
		cmd.Env = append(os.Environ(), idleEnv+"=1", "GOGC=100")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	h, other := newHost(t), newHost(t)
	connect(t, h, other)
	before := pss(t)
	s := newStore(t)
	if err := s.Attach("", h); err != nil {
		t.Fatal(err)
	}
	idle := pss(t)
	for i := range 5000 {
		if _, err := s.PutMany([]Small{{Data: randomBytes(uint64(i), 2000), Pin: PinFor{Owner: "task:1"}}}); err != nil {
			t.Fatal(err)
		}
	}
	c, _, err := s.Put(t.Context(), &endless{left: 64 << 20}, PinFor{Owner: "user"})
	if err != nil {
		t.Fatal(err)
	}
	drain(t, s, c.String(), Source{Local: true})
	collect(t, s, 2)
	after := pss(t)
	t.Logf("PSS: hosts %d KiB; the repository adds %d KiB idle, %d KiB idle after use", before, idle-before, after-before)
	if idle-before > 8<<10 || after-before > 24<<10 {
		t.Error("that is too much")
	}
}

// liveHeap is what a collection of garbage leaves, in bytes: what is merely not collected yet says nothing of a bound.
func liveHeap() uint64 {
	runtime.GC()
	sample := []rtmetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	rtmetrics.Read(sample)
	return sample[0].Value.Uint64()
}

// mostLive is by how much the live heap grows at most while f runs.
func mostLive(f func()) uint64 {
	base := liveHeap()
	peak := base
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				peak = max(peak, liveHeap())
			}
		}
	}()
	f()
	close(stop)
	<-done
	return peak - base
}

// Memory does not grow with the file.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it moves 256 MiB")
	}
	a, b, from := pair(t)
	var c cid.Cid
	put := mostLive(func() {
		var err error
		if c, _, err = a.Put(t.Context(), &endless{left: 128 << 20}, PinFor{Owner: "user"}); err != nil {
			t.Fatal(err)
		}
	})
	fetch := mostLive(func() { drain(t, b, c.String(), from) })
	t.Logf("live heap at most: %d MiB more putting, %d MiB more fetching (both sides)", put>>20, fetch>>20)
	if put > 32<<20 || fetch > 64<<20 {
		t.Error("that is too much")
	}
}
