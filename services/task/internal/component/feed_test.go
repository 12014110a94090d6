package component_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// feed is a watch of all tasks of a node.
type feed struct {
	nd     *node
	latest map[string]*taskv1.Task
	missed int
	news   chan *taskv1.WatchTasksResponse
}

func (nd *node) feed(r *taskv1.WatchTasksRequest) *feed {
	nd.t.Helper()
	ctx, cancel := context.WithTimeout(nd.ctx, time.Minute)
	nd.t.Cleanup(cancel)
	s, err := nd.client.WatchTasks(ctx, r)
	if err != nil {
		nd.t.Fatal(err)
	}
	f := &feed{nd: nd, latest: map[string]*taskv1.Task{}, news: make(chan *taskv1.WatchTasksResponse)}
	go func() {
		defer close(f.news)
		for {
			m, err := s.Recv()
			if err != nil {
				return
			}
			select {
			case f.news <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	f.until("it says that one has to list first", func() bool { return f.missed == 1 })
	return f
}

func (f *feed) until(what string, cond func() bool) {
	f.nd.t.Helper()
	for !cond() {
		m, ok := <-f.news
		if !ok {
			f.nd.t.Fatalf("the watch ended before %s: %d were told of", what, len(f.latest))
		}
		if m.GetMissed() {
			f.missed++
		} else if x := m.GetTask(); len(x.GetHistory()) > 0 {
			f.nd.t.Errorf("the watch tells histories: %v", x)
		} else {
			f.latest[x.GetId()] = x
		}
	}
}

// Both sides of a task are told of it, by those who watch all tasks.
func TestAllTasksAreWatched(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(nil), n.addConsumer(nil)
	at, of, none := p.feed(&taskv1.WatchTasksRequest{}), c.feed(&taskv1.WatchTasksRequest{Type: "sum"}), c.feed(&taskv1.WatchTasksRequest{Type: "wasm"})
	var last string
	for i := range 5 {
		last = c.submit(sumSpec("1", fmt.Sprint(i)), p)
		c.await(last)
	}
	labelled := sumSpec("1")
	labelled.Labels = map[string]string{"For": "Alice"}
	text := c.feed(&taskv1.WatchTasksRequest{Text: "for=alice"})
	id := c.submit(labelled, p)
	for what, f := range map[string]*feed{"the consumer's": of, "the provider's": at} {
		f.until(what, func() bool { return f.latest[last].GetState() == "COMPLETED" && f.latest[id].GetState() == "COMPLETED" })
		if len(f.latest) != 6 || f.missed != 1 {
			t.Errorf("%s watch told of %d tasks, and missed %d times", what, len(f.latest), f.missed)
		}
	}
	text.until("the one with the label", func() bool { return text.latest[id].GetState() == "COMPLETED" })
	if len(text.latest) != 1 || len(none.latest) != 0 {
		t.Errorf("filters let %d and %d pass", len(text.latest), len(none.latest))
	}
}

// Too much at once is not told, and the watch says so.
func TestAWatchOfAllTasksIsBounded(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	c := n.addConsumer(nil)
	f := c.feed(&taskv1.WatchTasksRequest{})
	for range 300 { // no provider: each is stored, and waits
		c.submit(sumSpec("1"), nil)
	}
	f.until("it is told of all, or that some are missed", func() bool { return len(f.latest) == 300 || f.missed > 1 })
	for range app.MaxFeeds - 1 {
		c.feed(&taskv1.WatchTasksRequest{})
	}
	s, err := c.client.WatchTasks(c.ctx, &taskv1.WatchTasksRequest{})
	if err == nil {
		_, err = s.Recv()
	}
	if err == nil || !strings.Contains(err.Error(), "watched 64 times") {
		t.Errorf("one watch more than are possible: %v", err)
	}
	if s, err = c.client.WatchTasks(c.ctx, &taskv1.WatchTasksRequest{Text: strings.Repeat("x", 300)}); err == nil {
		_, err = s.Recv()
	}
	if err == nil || !strings.Contains(err.Error(), "300 bytes") {
		t.Errorf("a long text: %v", err)
	}
}
