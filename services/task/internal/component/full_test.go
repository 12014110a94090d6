package component_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// fullStore is a journal on a disk that is full for a while.
type fullStore struct {
	provider.Store
	full   atomic.Bool
	failed atomic.Int32
}

func (f *fullStore) Commit(ctx context.Context, w *app.Writes) error {
	if f.full.Load() {
		f.failed.Add(1)
		return errors.New("the disk is full")
	}
	return f.Store.Commit(ctx, w)
}

// TestFullDiskDoesNotRunATaskAgainAndAgain: a submission that cannot be committed is delivered again until it can. It is run when it is in the
// journal, and not each time.
func TestFullDiskDoesNotRunATaskAgainAndAgain(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p := n.addNode("provider")
	p.pconf.Evaluator = domain.Local{}
	withScript(s, 1)(&p.pconf)
	full := &fullStore{}
	p.journal = func(st provider.Store) provider.Store { full.Store = st; return full }
	p.start()
	c := n.addConsumer(nil)
	full.full.Store(true)
	id := c.submit(scriptSpec(step{Name: "a"}), p)
	until(t, "some deliveries", func() bool { return full.failed.Load() >= 5 })
	if ran := s.ran("a"); ran != 1 {
		t.Errorf("it was run %d times", ran)
	}
	full.full.Store(false)
	if task := c.await(id); task.GetState() != "COMPLETED" || task.GetAttempts() != 1 || s.ran("a") != 2 {
		t.Errorf("the task is %s and was run %d times: %v", task.GetState(), s.ran("a"), details(task))
	}
	if task := c.await(c.submit(scriptSpec(step{Name: "b"}), p)); task.GetState() != "COMPLETED" || s.ran("b") != 1 {
		t.Errorf("the next is %s and was run %d times: %v", task.GetState(), s.ran("b"), details(task))
	}
}
