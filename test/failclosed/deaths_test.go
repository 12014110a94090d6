package failclosed

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/anonymous"
	"github.com/shallot-net/shallot/test/internal/module"
)

// printed is what `probe print N` prints.
func printed(n int) []byte {
	out, x := make([]byte, n), uint32(1)
	for i := range out {
		x = x*1664525 + 1013904223
		out[i] = byte(x >> 24)
	}
	return out
}

// received is how much content a node has had from others.
func (s *session) received(t *testing.T, node string) float64 {
	t.Helper()
	return s.Metric(t, node, "shallot_broker_stream_bytes_total", `protocol="content"`, `direction="in"`)
}

// The circuits by which a large result comes are closed half-way. It goes on by others, from where it was, and is the task's one outcome. What comes twice is what was under way: four blocks
// of a quarter of a mebibyte on each of four circuits at most.
func (s *session) circuitDies(t *testing.T) {
	const size = 12 << 20
	want := sha256.Sum256(printed(size))
	before := s.received(t, consumer)
	id := s.submit(t, "wasm", s.probe, "--", "print", fmt.Sprint(size))
	anonymous.Eventually(t, 2*time.Minute, "half of the result has come", func() bool { return s.received(t, consumer)-before > size/2 })
	at := s.received(t, consumer) - before
	cut, err := s.CutCircuits(t.Context(), consumer)
	if err != nil || cut == 0 {
		t.Fatalf("%d circuits were closed: %v", cut, err)
	}
	if shown := s.show(t, id); shown.State == "COMPLETED" {
		t.Errorf("the whole result was there before its circuit died, with %.1f MiB", at/(1<<20))
	}
	begin := time.Now()
	s.Shallot(t, consumer, "", "task", "watch", id)
	r := s.Shallot(t, consumer, "", "task", "result", id)
	if shown := s.show(t, id); shown.State != "COMPLETED" || shown.Attempts != 1 || sha256.Sum256([]byte(r.Stdout)) != want {
		t.Errorf("the task is %+v, its result has %d bytes, %s", shown, len(r.Stdout), r.Stderr)
	}
	all := s.received(t, consumer) - before
	t.Logf("%d circuits were closed when %.1f MiB of %d had come; the rest was there after %v, %.1f MiB in all", cut, at/(1<<20), size>>20, time.Since(begin).Round(10*time.Millisecond), all/(1<<20))
	if all > at+size-1<<20 {
		t.Errorf("%.1f MiB were received: it began anew", all/(1<<20))
	}
}

// roamer is a consumer that goes away.
const roamer = "roamer"

// A consumer is switched off while its task runs. The result waits where it was made, and is collected when the consumer is back.
func (s *session) consumerAway(t *testing.T) {
	ended := func() float64 { return s.Metric(t, "provider-2", "shallot_task_ended_total") }
	begin := time.Now()
	stop := s.Up(t, roamer, "provider-2", "--role", "consumer")
	before := ended()
	id := s.submitAt(t, roamer, "wasm", s.probe, "--provider", s.Status(t, "provider-2").GetPeerId(), "--", "slowcat", "4000")
	anonymous.Eventually(t, 2*time.Minute, "its task runs", func() bool { return s.showAt(t, roamer, id).State == "RUNNING" })
	stop()
	gone := time.Now()
	anonymous.Eventually(t, 2*time.Minute, "the task has ended at its provider", func() bool { return ended() > before })
	s.Up(t, roamer, "provider-2", "--role", "consumer")
	s.Shallot(t, roamer, "", "task", "watch", id)
	if shown := s.showAt(t, roamer, id); shown.State != "COMPLETED" || shown.Attempts != 1 {
		t.Errorf("the task is %+v", shown)
	}
	s.Want(t, roamer, "", "task", "result", id)
	t.Logf("the consumer was gone after %v, and had its result %v later", gone.Sub(begin).Round(100*time.Millisecond), time.Since(gone).Round(100*time.Millisecond))
}

// torsDie kills the consumer's tor and then a provider's while tasks run. Each has one outcome. In the long form, with SHALLOT_LONG, there are 50 tasks, and the two die in turns, each half
// a minute after it has recovered, for as long as tasks run.
func (s *session) torsDie(t *testing.T) {
	tasks, length := 10, 3*time.Second
	long := os.Getenv("SHALLOT_LONG") != ""
	if long {
		tasks, length = 50, 20*time.Second
	}
	program := filepath.Join(t.TempDir(), "sleep.wasm")
	if err := os.WriteFile(program, module.Sleep(length), 0o600); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for range tasks {
		ids = append(ids, s.submit(t, "wasm", program))
	}
	count := func(states ...string) (n int) {
		for _, id := range ids {
			state := s.show(t, id).State
			for _, want := range states {
				if state == want {
					n++
				}
			}
		}
		return n
	}
	nodes, kills := []string{consumer, provider}, 0
	for i, node := range nodes {
		anonymous.Eventually(t, 2*time.Minute, "tasks are under way", func() bool { return count("RUNNING", "ACCEPTED", "COMPLETED") >= 2+3*i })
		s.die(t, node)
		kills++
	}
	for long && kills < 30 {
		over := count("COMPLETED", "FAILED", "EXPIRED", "CANCELLED")
		t.Logf("%d of %d tasks are over", over, tasks)
		if over == tasks {
			break
		}
		s.recovered(t, nodes[kills%2])
		s.die(t, nodes[kills%2])
		kills++
	}
	begin, attempts := time.Now(), 0
	for _, id := range ids {
		s.result(t, id, "")
		attempts += s.show(t, id).Attempts
	}
	t.Logf("all %d tasks were done %v after the last of %d kills, in %d attempts", tasks, time.Since(begin).Round(time.Second), kills, attempts)
}

func (s *session) die(t *testing.T, node string) {
	t.Helper()
	if err := s.KillTor(node); err != nil {
		t.Fatal(err)
	}
	t.Logf("the tor of %s is killed", node)
}

// recovered waits until a node is online again, and half a minute more.
func (s *session) recovered(t *testing.T, node string) {
	t.Helper()
	begin := time.Now()
	anonymous.Eventually(t, recovery, node+" says that it is offline, or is back already", func() bool { return !s.Status(t, node).GetOnline() || time.Since(begin) > 2*time.Second })
	anonymous.Eventually(t, recovery, node+" is online again", func() bool { return s.Status(t, node).GetOnline() })
	t.Logf("%s was back after %v", node, time.Since(begin).Round(100*time.Millisecond))
	<-time.After(30 * time.Second)
}
