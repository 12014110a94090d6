package tracing

import (
	"sync"

	"go.opentelemetry.io/otel/trace"
)

// maxTasks is how many tasks' traces a process remembers; of an older one a new trace begins, with the task's id in it.
const maxTasks = 4096

// tasks are the traces that tasks were first seen in. They are in memory alone: nothing that is written down, or leaves the node, has a trace's id.
type tasks struct {
	mu    sync.Mutex
	known map[string]trace.SpanContext
	order []string // a ring
	next  int
}

func (t *tasks) get(task string) (trace.SpanContext, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.known[task]
	return c, ok
}

// add remembers the first trace of a task; it is the one that goes on.
func (t *tasks) add(task string, c trace.SpanContext) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.known[task]; ok || !c.IsValid() {
		return
	}
	if t.known == nil {
		t.known = map[string]trace.SpanContext{}
	}
	if len(t.order) < maxTasks {
		t.order = append(t.order, task)
	} else {
		delete(t.known, t.order[t.next])
		t.order[t.next] = task
		t.next = (t.next + 1) % maxTasks
	}
	t.known[task] = c
}
