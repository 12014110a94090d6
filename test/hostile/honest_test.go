package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
)

// honest is a consumer's work that goes on whatever happens: so many sums at a time, each checked.
type honest struct {
	done   atomic.Int64
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	wrong  []error
	slow   time.Duration // the longest that a task took
	failed atomic.Int64
}

func work(t *testing.T, node nodev1.NodeServiceClient, atOnce int) *honest {
	ctx, cancel := context.WithCancel(t.Context())
	h := &honest{cancel: cancel}
	for w := range atOnce {
		h.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				begin := time.Now()
				if err := sumOf(context.WithoutCancel(ctx), node, w, i); err != nil {
					h.failed.Add(1)
					h.mu.Lock()
					h.wrong = append(h.wrong, err)
					h.mu.Unlock()
					return
				}
				h.done.Add(1)
				h.mu.Lock()
				h.slow = max(h.slow, time.Since(begin))
				h.mu.Unlock()
			}
		})
	}
	return h
}

// stop ends the work after what is under way, and returns what went wrong.
func (h *honest) stop() error {
	h.cancel()
	h.wg.Wait()
	return errors.Join(h.wrong...)
}

func sumOf(ctx context.Context, node nodev1.NodeServiceClient, a, b int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stream, err := node.RunTask(ctx, &nodev1.RunTaskRequest{Spec: &taskv1.TaskSpec{Type: "sum",
		Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{strconv.Itoa(a), strconv.Itoa(b)}}}}})
	if err != nil {
		return err
	}
	var task *taskv1.Task
	var out []byte
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if r.GetTask() != nil {
			task = r.GetTask()
		}
		out = append(out, r.GetStdout()...)
	}
	if want := strconv.Itoa(a + b); task.GetState() != "COMPLETED" || strings.TrimSpace(string(out)) != want {
		return fmt.Errorf("task %s is %s and says %q, want %s: %v", task.GetId(), task.GetState(), out, want, task.GetError())
	}
	return nil
}

// sample is what the network did in a while.
type sample struct {
	tasks int64
	cpu   time.Duration // of all its processes
	took  time.Duration
}

func (s sample) rate() float64 { return float64(s.tasks) / s.took.Seconds() }

// measure watches for a while. The CPU is counted where the work is done, so that what the attacker itself uses of this machine's does not weigh.
func measure(t *testing.T, n *dev.Network, h *honest, during time.Duration) sample {
	t.Helper()
	before, begin, cpu := h.done.Load(), time.Now(), cpuOf(t, n)
	timer := time.NewTimer(during)
	defer timer.Stop()
	<-timer.C
	return sample{tasks: h.done.Load() - before, cpu: cpuOf(t, n) - cpu, took: time.Since(begin)}
}

// cpuOf is the CPU time that the network's processes have had.
func cpuOf(t *testing.T, n *dev.Network) (total time.Duration) {
	t.Helper()
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	all, err := n.Leftovers()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Pid), "stat"))
		if err != nil {
			continue // an executor that has just ended
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			t.Fatalf("%q is not what a process's stat says", b)
		}
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		total += time.Duration(user+system) * tick
	}
	return total
}

// share is how much of the machine an attack has cost the network: what it used beyond what its honest tasks cost before.
func share(before, during sample) float64 {
	if before.tasks == 0 {
		return 0
	}
	expected := float64(before.cpu) / float64(before.tasks) * float64(during.tasks)
	return (float64(during.cpu) - expected) / (float64(runtime.NumCPU()) * float64(during.took))
}
