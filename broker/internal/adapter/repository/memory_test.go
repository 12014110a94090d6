package repository

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
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

// Memory does not grow with the file.
func TestMemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it moves 256 MiB")
	}
	a, b, from := pair(t)
	const size = 128 << 20
	var peak atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapInuse))
			}
		}
	}()
	runtime.GC()
	c, _, err := a.Put(ctx, &endless{left: size}, PinFor{Owner: "user"})
	if err != nil {
		t.Fatal(err)
	}
	putPeak := peak.Swap(0)
	drain(t, b, c.String(), from)
	getPeak := peak.Load()
	cancel()
	<-done
	t.Logf("heap in use at most: %d MiB putting, %d MiB fetching (both sides)", putPeak>>20, getPeak>>20)
	if putPeak > 64<<20 || getPeak > 128<<20 {
		t.Errorf("heap in use: %d MiB putting, %d MiB fetching", putPeak>>20, getPeak>>20)
	}
}
