package crash_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// entry is the one attempt that a provider has; nil: none.
func (s *side) entry() *domain.Entry {
	all, err := s.store.ListEntries(context.Background(), app.TaskFilter{Limit: 1})
	if err != nil || len(all) == 0 {
		return nil
	}
	return all[0]
}

// The consumer is away from when its task is accepted. Whichever commit one of the two providers ends at while the result is copied, the copy is
// made; with the provider gone for good, it is what the consumer finds; and nothing of it stays.
func TestProvidersEndAtAnyCommitOfACopy(t *testing.T) {
	for name, size := range map[string]int{"small": 0, "large": 200_000} {
		for _, who := range []string{"provider", "keeper"} {
			for _, written := range []bool{false, true} {
				for n := 1; n <= 3; n++ {
					t.Run(fmt.Sprintf("%s/%s/%d/written=%v", name, who, n, written), func(t *testing.T) {
						t.Parallel()
						w := newWorld(t, slow{wait: 200 * time.Millisecond, size: size})
						w.addKeeper()
						id := w.submit(t)
						eventually(t, "the task to be accepted", func() bool { return w.provider.entry() != nil })
						w.consumer.store.Flush()
						w.consumer.end()
						side := map[string]*side{"provider": w.provider, "keeper": w.keeper}[who]
						side.crashAt(n, written)
						copied := func() bool {
							kept, made := w.keeper.entry(), w.provider.entry()
							return kept != nil && kept.State.Terminal() && made.Reported && made.Replica(keeperPeer).State == domain.ReplicaKept
						}
						t.Logf("ended: %v", side.restartAfterCrash(copied))
						eventually(t, "the copy", copied)
						w.provider.end()
						w.consumer.run()
						w.check(t, id)
						if task, err := w.consumer.store.Task(context.Background(), id); err != nil || task.Attempts[0].Ended != "RESULT" && task.Attempts[0].Ended != "LEASE_LOST" {
							t.Errorf("the task is %+v, %v", task, err)
						}
						eventually(t, "the copy to be let go", func() bool { return !w.repo.kept() && w.keeper.entry().Collected })
					})
				}
			}
		}
	}
}

// The one that keeps a copy ends at any commit with which it lets it go: what was begun is finished, by its consumer's word or by its time.
func TestKeeperEndsWhileItLetsGo(t *testing.T) {
	for _, written := range []bool{false, true} {
		t.Run(fmt.Sprintf("written=%v", written), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, slow{wait: 200 * time.Millisecond})
			w.addKeeper()
			id := w.submit(t)
			eventually(t, "the task to be accepted", func() bool { return w.provider.entry() != nil })
			w.consumer.store.Flush()
			w.consumer.end()
			eventually(t, "the copy", func() bool {
				kept, made := w.keeper.entry(), w.provider.entry()
				return kept != nil && kept.State.Terminal() && made.Reported
			})
			w.provider.end()
			w.keeper.crashAt(1, written)
			w.consumer.run()
			w.check(t, id)
			t.Logf("ended: %v", w.keeper.restartAfterCrash(func() bool { return w.keeper.entry().Collected }))
			kept := w.keeper.entry()
			if !kept.Collected && !kept.ForgetAt.After(time.Now()) {
				t.Fatalf("it would be kept without end: %+v", kept)
			}
		})
	}
}
