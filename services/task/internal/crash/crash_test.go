package crash_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func create() app.Create {
	b, err := proto.Marshal(&executorv1.SumOptions{Addends: []string{"1", "2"}})
	if err != nil {
		panic(err)
	}
	return app.Create{RequestID: "request", Spec: app.Spec{Type: "sum", Options: b}}
}

// submit asks until it is told that the task exists, as a client does.
func (w *world) submit(t *testing.T) string {
	t.Helper()
	c := create()
	if w.keeper != nil {
		c.Spec.Policy.Replicas = 2
	}
	candidate := w.candidate()
	c.Candidate = &candidate
	deadline := time.Now().Add(time.Minute)
	for {
		role := w.consumer.get()
		if role != nil {
			r, err := role.Create(context.Background(), c)
			if err == nil && w.consumer.get() == role {
				w.consumer.handle(r)
				return r.Task.ID
			}
			if err != nil && !errors.Is(err, errCrash) {
				t.Fatalf("create: %v", err)
			}
			if err != nil {
				w.consumer.restartAfterCrash(func() bool { return false })
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the task could not be made")
		}
	}
}

func (w *world) done(id string) func() bool {
	return func() bool {
		task, err := w.consumer.store.Task(context.Background(), id)
		return err == nil && task.State.Terminal()
	}
}

// check holds what must be true whatever has crashed.
func (w *world) check(t *testing.T, id string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !w.done(id)() {
		if time.Now().After(deadline) {
			task, _ := w.consumer.store.Task(context.Background(), id)
			t.Fatalf("the task has not ended: %+v", task)
		}
		<-time.After(2 * time.Millisecond)
	}
	task, err := w.consumer.store.Task(context.Background(), id)
	if err != nil || task.State != domain.Completed || *task.ExitCode != 0 {
		t.Fatalf("the task is %+v, %v", task, err)
	}
	role, ok := w.consumer.get().(*consumer.Service)
	if !ok {
		t.Fatal("no consumer")
	}
	body, err := role.Result(context.Background(), id, "stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if b, err := io.ReadAll(body); err != nil || string(b) != "3\n" {
		t.Fatalf("stdout is %q, %v", b, err)
	}
	ended := 0
	for _, h := range task.History {
		if h.State.Terminal() {
			ended++
		}
	}
	if ended != 1 {
		t.Fatalf("it ended %d times: %+v", ended, task.History)
	}
}

func TestProcessEndsAtAnyCommit(t *testing.T) {
	for name, ex := range map[string]app.Executor{"express": slow{}, "accepted": slow{wait: 60 * time.Millisecond}, "large": slow{wait: 30 * time.Millisecond, size: 200_000}} {
		for _, who := range []string{"consumer", "provider"} {
			for _, written := range []bool{false, true} {
				for n := 1; n <= 4; n++ {
					t.Run(fmt.Sprintf("%s/%s/%d/written=%v", name, who, n, written), func(t *testing.T) {
						t.Parallel()
						w := newWorld(t, ex)
						side := w.consumer
						if who == "provider" {
							side = w.provider
						}
						side.crashAt(n, written)
						id := w.submit(t)
						t.Logf("ended: %v", side.restartAfterCrash(w.done(id)))
						w.check(t, id)
					})
				}
			}
		}
	}
}

func TestBothEndAgainAndAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, slow{wait: 50 * time.Millisecond})
	id := w.submit(t)
	for i := range 6 {
		side := []*side{w.provider, w.consumer}[i%2]
		side.store.Crash()
		side.end()
		side.run()
	}
	w.check(t, id)
}
