package executor

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

// counted counts what a child says.
type counted struct {
	grpc.BidiStreamingClient[executorv1.ServeRequest, executorv1.ServeResponse]
	messages int
}

func (c *counted) Recv() (*executorv1.ServeResponse, error) {
	c.messages++
	return c.BidiStreamingClient.Recv()
}

func count(t *testing.T, w *Wasm) *counted {
	t.Helper()
	idle(t, w, 1)
	p := w.pool.idle[0]
	c := &counted{BidiStreamingClient: p.stream}
	p.stream = c
	return c
}

func TestShortRunIsOneMessage(t *testing.T) {
	w := newWasm(t, func(c *Config) { c.Max = 1 })
	c := count(t, w)
	hello(t, w) // which is also compiled
	const runs = 50
	single := 0
	for range runs {
		before := c.messages
		hello(t, w)
		if c.messages == before+1 {
			single++
		}
	}
	// On a busy machine some are not short.
	if single < runs/2 {
		t.Errorf("%d of %d runs were one message; %d messages in all", single, runs, c.messages)
	}
}

func TestArtefactComesBeforeTheStart(t *testing.T) {
	w := newWasm(t, func(c *Config) { c.Max = 1 })
	c := count(t, w)
	if out, _ := execute(t, w, taskOf(heavy(20, 400))); out.Reason != "" {
		t.Fatalf("%+v", out)
	}
	// The artefact, the start, the end.
	if files := artefacts(t, w.cfg.Dir); len(files) != 1 || c.messages < 3 {
		t.Errorf("%d artefacts are kept, of %d messages", len(files), c.messages)
	}
}

func TestLongRunIsFollowed(t *testing.T) {
	w := newWasm(t, nil)
	hello(t, w)
	soonest := time.Hour
	for range 3 { // a busy machine may be late
		ctx, cancel := context.WithCancel(t.Context())
		s := newSink()
		var all sync.WaitGroup
		began := time.Now()
		all.Go(func() { _, _ = w.Execute(ctx, taskOf(enginetest.Program("loop")), s) })
		<-s.begun
		<-s.wrote
		soonest = min(soonest, time.Since(began))
		cancel()
		all.Wait()
	}
	if soonest > 300*time.Millisecond {
		t.Errorf("output came after %v", soonest)
	}
}

func TestRunAfterOneThatWasEnded(t *testing.T) {
	w := newWasm(t, func(c *Config) { c.Max = 1 })
	for range 3 {
		loop := taskOf(enginetest.Program("loop"))
		loop.Limits.Time = 150 * time.Millisecond
		began := time.Now()
		if out, s := execute(t, w, loop); out.Reason != app.ReasonTimeLimit || s.text("stdout") != "on\n" {
			t.Errorf("%+v, %q", out, s.text("stdout"))
		}
		if took := time.Since(began); took < loop.Limits.Time {
			t.Errorf("it was ended after %v", took)
		}
		hello(t, w)
	}
}

func TestOutputFilesComeInOrder(t *testing.T) {
	w := newWasm(t, nil)
	input := func(name, text string) app.Part { return inline("input:"+name, []byte(text)) }
	out, s := execute(t, w, taskOf(enginetest.Program("files"), input("a.txt", "a "), input("sub/b.txt", "b ")))
	if out.Reason != "" {
		t.Fatalf("%+v", out)
	}
	for name, want := range map[string]string{"o.txt": "made", "empty": "", "d/p.txt": "made"} {
		if b, ok := s.out["output:"+name]; !ok || b.String() != want {
			t.Errorf("%s: %v, %q", name, ok, s.text("output:"+name))
		}
	}
	if left, _ := filepath.Glob(filepath.Join(w.cfg.Dir, dirChildren, "*", "out", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	hello(t, w)
}
