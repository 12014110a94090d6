package simulation_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// asked notes that a provider is asked what has become of tasks.
func (w *world) asked() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queries = append(w.queries, time.Now())
}

// long makes tasks that take about that long and more, each other one with a result that is fetched.
func (w *world) long(n int, atLeast time.Duration) {
	w.tasks, w.byName = nil, make(map[string]*task)
	for i := range n {
		t := &task{order: order{Name: fmt.Sprintf("long%d", i), Wait: 2*atLeast + time.Duration(i)*5*time.Second, Size: i % 2 * 100_000}}
		t.spec = app.Spec{Type: taskType, Labels: map[string]string{"name": t.Name}, Parts: []app.PartSource{{Name: "stdin", Inline: []byte("for " + t.Name)}}}
		t.spec.Options, _ = json.Marshal(t.order)
		t.want = printed(&t.order, t.spec.Parts)
		w.tasks = append(w.tasks, t)
		w.byName[t.Name] = t
	}
}

// states are those of the tasks, by what the consumer has on its disk.
func (w *world) states() (out []domain.State) {
	for _, t := range w.tasks {
		task, err := w.consumer.store.Task(w.t.Context(), w.id(t))
		if err != nil {
			w.failf("%s: %v", t.Name, err)
			continue
		}
		out = append(out, task.State)
	}
	return out
}

// results are how many the providers keep.
func (w *world) results() (n int) {
	for _, s := range w.providers {
		for _, owner := range s.content.pinned() {
			if strings.HasPrefix(owner, "task:") {
				n++
			}
		}
	}
	return n
}

// away runs tasks while their consumer is away, and judges what became of them. leave makes it go; what that returns brings it back.
func away(t *testing.T, anonymous bool, atLeast, absence time.Duration, leave func(*side) func(), check func(*world)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		<-time.After(time.Until(start))
		w := newWorld(t, 1, dir, &tally{n: make(map[string]int)})
		w.odds, w.anonymous = chances{}, anonymous
		w.long(6, atLeast)
		var nodes, users sync.WaitGroup
		for _, s := range w.providers {
			s.policy.Slots, s.policy.Capacity, s.policy.PerPeer = 6, 100, 100
		}
		for _, s := range append(slices.Clone(w.providers), w.consumer) {
			nodes.Go(s.live)
		}
		for _, task := range w.tasks {
			users.Go(func() { w.user(task) })
		}
		<-time.After(20 * time.Second)
		if got := w.states(); slices.ContainsFunc(got, func(s domain.State) bool { return s != domain.Running }) {
			t.Errorf("before the consumer goes the tasks are %v", got)
		}
		back := leave(w.consumer)
		<-time.After(absence)
		check(w)
		w.mu.Lock()
		w.queries = nil
		w.mu.Unlock()
		back()
		users.Wait()
		w.settle()
		w.judge()
		w.judgePins()
		for _, task := range w.tasks {
			if n := w.runs(task.Name, func(*runs) {}); n.started != 1 {
				t.Errorf("%s was run %d times", task.Name, n.started)
			}
		}
		if got := w.states(); slices.ContainsFunc(got, func(s domain.State) bool { return s != domain.Completed }) {
			t.Errorf("in the end the tasks are %v", got)
		}
		if n := w.results(); n > 0 {
			t.Errorf("%d results are left at the providers", n)
		}
		w.cancelCtx()
		nodes.Wait()
		for _, f := range w.failed {
			t.Error(f)
		}
		if t.Failed() {
			t.Log(w.story(true))
		}
	})
}

// gone are the ways to be away, and back.
var gone = map[string]func(*side) func(){
	"without the network": func(s *side) func() {
		s.cut(true)
		return func() { s.cut(false) }
	},
	"switched off": func(s *side) func() {
		held := make(chan struct{})
		s.mu.Lock()
		s.held = held
		s.mu.Unlock()
		s.current().end()
		return func() { close(held) }
	},
}

// A consumer that disappears for an hour while its tasks run finds their results where they were made, and no task has run twice.
func TestConsumerAwayForAnHour(t *testing.T) {
	for name, leave := range gone {
		for _, anonymous := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, anonymous %v", name, anonymous), func(t *testing.T) {
				away(t, anonymous, time.Minute, time.Hour, leave, func(w *world) {
					if n := w.results(); n != 6 {
						t.Errorf("after an hour the providers keep %d results of 6", n)
					}
				})
			})
		}
	}
}

// When a node is back, its personas do not ask at one moment for their tasks: who did would be seen to be one consumer.
func TestPersonasAskOneAfterTheOther(t *testing.T) {
	for name, leave := range gone {
		t.Run(name, func(t *testing.T) {
			var w *world
			away(t, true, 150*time.Second, 40*time.Second, leave, func(at *world) { w = at })
			slices.SortFunc(w.queries, time.Time.Compare)
			if len(w.queries) != 6 {
				t.Fatalf("%d questions were asked for 6 tasks", len(w.queries))
			}
			for i, at := range w.queries[1:] {
				if at.Equal(w.queries[i]) {
					t.Errorf("two personas asked at the same moment, %v", at)
				}
			}
			if d := w.queries[5].Sub(w.queries[0]); d < time.Second/2 {
				t.Errorf("all asked within %v", d)
			}
		})
	}
}
