package simulation_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// settle waits until nothing is left to do, and says what is left when that takes too long.
func (w *world) settle() {
	const patience = 6 * time.Hour
	var left []string
	for until := time.Now().Add(patience); time.Now().Before(until); {
		wait(w.ctx, 10*time.Second)
		if left = w.unfinished(); len(left) == 0 {
			return
		}
	}
	w.failf("after %s there still are: %s", patience, strings.Join(left, "; "))
}

// unfinished lists what must come to its end by itself.
func (w *world) unfinished() []string {
	var left []string
	note := func(n int, format string, args ...any) {
		if n > 0 {
			left = append(left, fmt.Sprintf("%d ", n)+fmt.Sprintf(format, args...))
		}
	}
	ctx := context.Background()
	for _, t := range w.tasks {
		task, err := w.consumer.store.Task(ctx, w.id(t))
		if err != nil {
			left = append(left, fmt.Sprintf("%s: %v", t.Name, err))
		} else if !task.State.Terminal() {
			left = append(left, t.Name+" is "+task.State.String())
		}
	}
	releases, _ := w.consumer.store.Releases(ctx, 1000)
	note(len(releases), "results to let go")
	for _, s := range append([]*side{w.consumer}, w.providers...) {
		s.store.Flush()
		rows, _ := s.store.Outbox(ctx, 0, 1000)
		for _, r := range rows {
			left = append(left, fmt.Sprintf("%s has %s %s/%d to tell", s.name, r.Type, w.label(r.TaskID), r.Attempt))
		}
		l := s.current()
		if l == nil || l.current() == nil {
			left = append(left, s.name+" is down")
			continue
		}
		p, ok := l.role.(*provider.Service)
		if !ok {
			continue
		}
		entries, _ := s.store.OpenEntries(ctx)
		note(len(entries), "open entries at %s", s.name)
		q := p.Queue()
		note(q.Pending+q.Running, "attempts at work at %s", s.name)
		l.workspace.mu.Lock()
		note(l.workspace.open, "directories at %s", s.name)
		l.workspace.mu.Unlock()
		l.parts.mu.Lock()
		note(l.parts.users, "users of shared parts at %s", s.name)
		l.parts.mu.Unlock()
	}
	return left
}

// judge holds every task against what its user may see.
func (w *world) judge() {
	l := w.consumer.current()
	for _, t := range w.tasks {
		w.tally.add("tasks", 1)
		v, ok := w.look(t)
		if !ok {
			w.failf("%s cannot be looked at", t.Name)
			continue
		}
		task, err := w.consumer.store.Task(context.Background(), w.id(t))
		if err != nil {
			w.failf("%s: %v", t.Name, err)
			continue
		}
		w.tally.add(v.State.String(), 1)
		w.judgeHistory(t, task)
		switch v.State {
		case domain.Completed:
			w.judgeResult(l, t, &v)
		case domain.Failed:
			w.judgeFailure(t, task)
		case domain.Cancelled:
			if !t.cancelled {
				w.failf("%s is CANCELLED, and nobody wanted that", t.Name)
			}
		case domain.Expired:
			w.judgeClock(t, task)
		default:
			w.failf("%s is %s", t.Name, v.State)
		}
	}
}

func (w *world) judgeResult(l *life, t *task, v *app.TaskView) {
	out, err := w.stdout(l, t)
	switch {
	case err != nil:
		w.failf("the result of %s: %v", t.Name, err)
	case t.Reason != "" || code(v) != t.Exit:
		w.failf("%s is COMPLETED with %d", t.Name, code(v))
	case !bytes.Equal(out, t.want):
		w.failf("%s printed %.100q", t.Name, out)
	}
}

func (w *world) judgeFailure(t *task, task *domain.Task) {
	ended := 0
	for _, h := range task.History {
		if counted(h) {
			ended++
		}
	}
	reason := reasonOf(task.Error)
	switch {
	case reason == t.Reason && t.Reason != "":
	case reason == "ATTEMPTS_EXHAUSTED" && (ended == int(task.Policy.MaxAttempts) || len(task.Attempts) == domain.MaxPlacements):
	default:
		w.failf("%s is FAILED: %s %s (%d attempts of %d)", t.Name, reason, task.Error.Message, ended, task.Policy.MaxAttempts)
	}
}

func (w *world) judgeClock(t *task, task *domain.Task) {
	c := task.Clocks
	from := map[string]time.Time{domain.ClockTotal.Reason(): task.CreatedAt.Add(c.Total), domain.ClockPlacement.Reason(): task.WaitingSince.Add(c.Placement),
		domain.ClockQueue.Reason(): task.AcceptedAt.Add(c.Queue), domain.ClockRun.Reason(): task.StartedAt.Add(c.Run)}
	if task.Receipt != nil {
		from[domain.ClockCollection.Reason()] = task.Receipt.At.Add(c.Collection)
	}
	if t.spec.Clocks == (domain.Clocks{}) { // long ones: there must have been nobody to ask
		w.tally.add("for want of a provider", 1)
		for _, s := range w.providers {
			x, no := task.Excluded[s.peer]
			if allowed := len(task.Policy.Only) == 0 || slices.Contains(task.Policy.Only, s.peer); allowed && (!no || !x.Until.IsZero()) {
				w.failf("%s is EXPIRED by %s, and %s was not asked", t.Name, reasonOf(task.Error), s.name)
			}
		}
	}
	at, ok := from[reasonOf(task.Error)]
	if late := task.FinishedAt.Sub(at); !ok || late < 0 || late > time.Minute+faultsEnd {
		w.failf("%s is EXPIRED by %s, %s after that clock", t.Name, reasonOf(task.Error), late)
	}
}

// judgeHistory holds a task's history against its attempts and its runs.
func (w *world) judgeHistory(t *task, task *domain.Task) {
	ends, submitted := 0, 0
	for _, h := range task.History {
		switch h.What {
		case "SUBMITTED":
			submitted++
		case "REDIRECTED":
			w.tally.add("redirects", 1)
		case "REPLICA":
			w.tally.add("from a replica", 1)
		case "REPLICAS":
			w.tally.add("reports of replicas", 1)
		case "REFUSED":
			if strings.HasPrefix(h.Detail, app.ReasonPuzzleRequired) {
				w.tally.add("prices", 1)
			}
			w.tally.add("refusals", 1)
		case "LEASE_LOST":
			w.tally.add("leases lost", 1)
			if strings.HasPrefix(h.Detail, "LEASE_LOST:") && w.consumer.wasAbsent(h.At) {
				w.failf("%s lost its lease while the consumer could hear nothing", t.Name)
			}
		case "FAILED_AT_PROVIDER":
			w.judgeProviders(t, h.Detail)
		case "RESULT_INVALID", "REJECTED":
			w.failf("%s: %s: %s", t.Name, h.What, h.Detail)
		}
		if h.State.Terminal() {
			ends++
		}
	}
	if ends != 1 {
		w.failf("%s ended %d times", t.Name, ends)
	}
	if submitted != len(task.Attempts) && len(task.History) < 100 {
		w.failf("%s was submitted %d times in %d attempts", t.Name, submitted, len(task.Attempts))
	}
	ran := w.runs(t.Name, func(*runs) {})
	w.tally.add("runs", ran.started)
	w.tally.add("extra runs", max(ran.started-1, 0))
	for n := range ran.attempts {
		if n == 0 || n > uint32(len(task.Attempts)) {
			w.failf("%s ran as attempt %d of %d", t.Name, n, len(task.Attempts))
		}
	}
	for n, by := range ran.finished {
		for who, times := range by {
			if times > 1 {
				w.failf("attempt %d of %s came to its end %d times in %s", n, t.Name, times, who)
			}
		}
	}
}

// judgeProviders looks whether there was a reason for a provider's failure.
func (w *world) judgeProviders(t *task, detail string) {
	reason, _, _ := strings.Cut(detail, ":")
	no := w.odds == chances{}
	crashed, content := w.excuses["crash"], w.odds.content > 0
	if ok := map[string]bool{"EXECUTOR_DIED": t.Dies > 0 || crashed, "PAYLOAD_UNAVAILABLE": content || w.excuses["absence"] || crashed, "RESULT_LOST": content, "FORGOTTEN": !no}; !ok[reason] {
		w.failf("%s failed at a provider: %s", t.Name, detail)
	}
}

// judgePins finds results and payloads that are kept although their task is over. What is let go is not written down: where something
// was lost, they may wait for their time.
func (w *world) judgePins() {
	left := 0
	for _, s := range append([]*side{w.consumer}, w.providers...) {
		owners := slices.DeleteFunc(s.content.pinned(), isShare)
		left += len(owners)
		if len(owners) > 0 && !w.excuses["crash"] && !w.excuses["pins"] {
			for _, o := range owners {
				kind, id, _ := strings.Cut(o, ":")
				w.failf("%s still keeps a %s of %s", s.name, kind, w.label(id))
			}
		}
	}
	w.tally.add("pins left", left)
}

// judgeEmpty looks whether anything is left when every time is over.
func (w *world) judgeEmpty() {
	ctx := context.Background()
	for _, s := range append([]*side{w.consumer}, w.providers...) {
		if owners := s.content.pinned(); len(owners) > 0 {
			w.failf("%s keeps content for ever: %v", s.name, owners)
		}
		s.store.Flush()
		if entries, _ := s.store.ListEntries(ctx, app.TaskFilter{Limit: 1000}); len(entries) > 0 {
			w.failf("%s keeps %d entries for ever", s.name, len(entries))
		}
		s.disk.mu.Lock()
		if n, m := len(s.disk.results), len(s.disk.logs); n+m > 0 {
			w.failf("%s keeps %d results and %d logs for ever", s.name, n, m)
		}
		s.disk.mu.Unlock()
	}
	if tasks, _ := w.consumer.store.ListTasks(ctx, app.TaskFilter{Limit: 1000}); len(tasks) > 0 {
		w.failf("the consumer keeps %d tasks for ever", len(tasks))
	}
}
