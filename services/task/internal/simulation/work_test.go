package simulation_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// order is what a task's payload tells its executor to do. What a run prints is a function of the order and its parts alone.
type order struct {
	Name   string
	Wait   time.Duration // about
	Size   int           // bytes of stdout beside a line
	Exit   int32
	Reason string // of the outcome
	Dies   int    // the executor dies in this many first runs
	Kills  bool   // and takes its provider down
	Stderr bool
}

// task is one of a seed's tasks, and what its user does.
type task struct {
	order
	spec      app.Spec
	at        time.Duration // after the beginning
	placed    bool          // with the request
	twice     time.Duration // another request with the same id, so much later; negative: side by side; 0: none
	cancel    time.Duration // after at; 0: never
	want      []byte        // its stdout
	id        string        // once it was accepted
	cancelled bool          // it was asked for
	end       *app.TaskView // the first that was terminal
}

const taskType = "work"

// deal makes the tasks of a seed.
func (w *world) deal() {
	d := w.dice
	for i := range 3 + d.below(8, "tasks") {
		name := fmt.Sprintf("t%d", i)
		t := &task{order: order{Name: name}, at: d.span(0, pick(d, "within", time.Second, 25*time.Second), name+" at"), placed: d.chance(0.8, name+" placed")}
		t.spec = app.Spec{Type: taskType, Labels: map[string]string{"name": name}}
		w.dealWork(t)
		w.dealClocks(t)
		if d.chance(0.15, name+" twice") {
			t.twice = pick(d, name+" twice when", -1, d.span(time.Millisecond, 20*time.Second, name+" later"))
		}
		if d.chance(0.18, name+" cancel") {
			t.cancel = d.span(time.Millisecond, pick(d, name+" cancel when", 40*time.Millisecond, 500*time.Millisecond, 15*time.Second), name+" cancel exactly")
		}
		t.spec.Policy.MaxAttempts = pick[uint32](d, name+" attempts", 0, 0, 0, 1, 5)
		t.spec.Policy.Replicas = pick[uint32](d, name+" replicas", 0, 0, 2, 3)
		if d.chance(0.1, name+" not handed on") {
			no := false
			t.spec.Redirect = &no
		}
		if d.chance(0.05, name+" only") {
			t.spec.Policy.Only = []string{w.providers[d.below(len(w.providers), name+" whom")].peer}
		}
		t.spec.Options, _ = json.Marshal(t.order)
		t.want = printed(&t.order, t.spec.Parts)
		w.tasks = append(w.tasks, t)
		w.byName[name] = t
	}
}

func (w *world) dealWork(t *task) {
	d, name := w.dice, t.Name
	t.Wait = pick(d, name+" takes", 0, 10*time.Millisecond, 100*time.Millisecond, 700*time.Millisecond, 6*time.Second, 30*time.Second)
	t.Stderr = d.chance(0.2, name+" stderr")
	t.spec.Parts = []app.PartSource{{Name: "stdin", Inline: []byte("for " + name)}}
	switch d.below(20, name+" kind") {
	case 0:
		t.Exit = 3
	case 1:
		t.Reason = app.ReasonTrap
	case 2:
		t.Reason = app.ReasonTimeLimit
	case 3, 4:
		t.Dies = 1 + d.below(4, name+" dies")
	case 5:
		t.Dies, t.Kills = 1+d.below(4, name+" dies"), true
	case 6, 7:
		t.Size = 70_000 + d.below(50_000, name+" size")
	case 8:
		t.spec.Parts[0].Inline = bytes.Repeat([]byte{byte(len(name))}, 70_000)
	case 9, 10:
		t.spec.Parts = append(t.spec.Parts, app.PartSource{Name: app.PartModule, Inline: bytes.Repeat([]byte("module "), 5_000)})
	case 11:
		t.spec.Limits.Memory = tooMuch // for the first provider
	}
}

// tooMuch is memory that only the second provider grants.
const tooMuch = 1 << 30

func (w *world) dealClocks(t *task) {
	d, name := w.dice, t.Name
	if !d.chance(0.2, name+" clocks") {
		return
	}
	length := d.span(500*time.Millisecond, 6*time.Second, name+" clock")
	*pick(d, name+" which clock", &t.spec.Clocks.Placement, &t.spec.Clocks.Queue, &t.spec.Clocks.Run, &t.spec.Clocks.Collection, &t.spec.Clocks.Total) = length
}

// printed is what a run of an order prints.
func printed(o *order, parts []app.PartSource) []byte {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%s %d\n", p.Name, len(p.Inline))
		h.Write(p.Inline)
	}
	out := fmt.Appendf(nil, "%s had %x\n", o.Name, h.Sum(nil))
	return append(out, bytes.Repeat([]byte(o.Name), o.Size/len(o.Name))...)
}

// runs counts the runs of one task.
type runs struct {
	started  int
	attempts map[uint32]bool           // that were run
	finished map[uint32]map[string]int // by attempt and provider: runs that came to their end in a process that lived on
}

// executor runs orders.
type executor struct{ l *life }

func (x *executor) Describe() app.Capability { return app.Capability{Type: taskType, Version: "1"} }

func (x *executor) Validate(context.Context, []byte, []app.Part) error { return nil }

var errDied = errors.New("the executor died")

func (x *executor) Execute(ctx context.Context, run app.Run, sink app.Sink) (app.Outcome, error) {
	w, s := x.l.side.w, x.l.side
	var o order
	if err := json.Unmarshal(run.Options, &o); err != nil {
		w.failf("the options of %s are damaged: %v", w.label(run.TaskID), err)
		return app.Outcome{Reason: app.ReasonPayloadInvalid}, nil
	}
	sources := make([]app.PartSource, len(run.Parts))
	for i, p := range run.Parts {
		b, err := x.l.parts.read(p)
		if err != nil && !x.l.gone() {
			w.failf("%s of %s cannot be read: %v", p.Name, o.Name, err)
		}
		sources[i] = app.PartSource{Name: p.Name, Inline: b}
	}
	n := w.runs(o.Name, func(r *runs) { r.started, r.attempts[run.Attempt] = r.started+1, true })
	key := w.dice.nth(fmt.Sprintf("%s runs %s/%d", s.name, o.Name, run.Attempt))
	w.tracef(s, "runs %s/%d, run %d of the task", o.Name, run.Attempt, n.started)
	sink.Started()
	if p, ok := sink.(app.ProgressSink); ok {
		p.Progress(0.5, "half of it")
	}
	took := w.dice.span(time.Microsecond+o.Wait/2, time.Millisecond+o.Wait*3/2, key)
	if n.started <= o.Dies {
		wait(ctx, took/2)
		if o.Kills && ctx.Err() == nil && x.l.end() {
			w.tracef(s, "is taken down by %s", o.Name)
		}
		return app.Outcome{}, errDied
	}
	out := printed(&o, sources)
	if err := errors.Join(x.print(sink, &o), sink.Output("stdout", out[:len(out)/2])); err != nil {
		return app.Outcome{}, err
	}
	wait(ctx, took)
	if ctx.Err() != nil {
		return app.Outcome{Reason: app.ReasonCancelled}, nil
	}
	if err := sink.Output("stdout", out[len(out)/2:]); err != nil {
		return app.Outcome{}, err
	}
	if !x.l.gone() {
		w.runs(o.Name, func(r *runs) {
			if r.finished[run.Attempt] == nil {
				r.finished[run.Attempt] = make(map[string]int)
			}
			r.finished[run.Attempt][fmt.Sprintf("%s life %d", s.name, x.l.number)]++
		})
	}
	return app.Outcome{ExitCode: o.Exit, Reason: o.Reason, Message: o.Reason}, nil
}

func (x *executor) print(sink app.Sink, o *order) error {
	if !o.Stderr {
		return nil
	}
	return sink.Output("stderr", []byte(o.Name+" says that it runs\n"))
}

// user makes a task's request until it is answered, cancels it where that is in the plan, and looks at it until it is over.
func (w *world) user(t *task) {
	wait(w.ctx, t.at)
	if t.twice < 0 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			wait(w.ctx, w.dice.span(time.Nanosecond, 2*time.Millisecond, t.Name+" beside"))
			w.submit(t, "beside")
		}()
		defer func() { <-done }()
	}
	w.submit(t, "first")
	if t.cancel > 0 {
		go w.cancel(t)
	}
	if t.twice > 0 {
		go func() {
			wait(w.ctx, t.twice)
			w.submit(t, "again")
		}()
	}
	for n := 0; w.ctx.Err() == nil; n++ {
		wait(w.ctx, w.dice.span(200*time.Millisecond, 4*time.Second, fmt.Sprintf("%s is looked at %d", t.Name, n)))
		if v, ok := w.look(t); ok && v.State.Terminal() {
			return
		}
	}
}

// ask asks the consumer until it is answered by a process that lives on.
func (w *world) ask(what string, do func(l *life, s *session) error) {
	for n := 0; w.ctx.Err() == nil; n++ {
		if l := w.consumer.current(); l != nil {
			if s := l.current(); s != nil {
				err := do(l, s)
				if s.alive() && err == nil {
					return
				}
				if s.alive() && !errors.Is(err, errCrash) && !errors.Is(err, errRepository) && !errors.Is(err, context.Canceled) {
					w.failf("%s: %v", what, err)
					return
				}
			}
		}
		wait(w.ctx, w.dice.span(50*time.Millisecond, 2*time.Second, w.dice.nth(what+" waits")))
	}
}

func (w *world) submit(t *task, which string) {
	c := app.Create{RequestID: t.Name, Spec: t.spec}
	if which != "first" {
		w.tally.add("submitted again", 1)
	}
	n := 0
	w.ask(t.Name+" "+which, func(l *life, s *session) error {
		if t.placed && t.spec.Policy.Only == nil {
			to := w.providers[w.dice.below(len(w.providers), fmt.Sprintf("%s %s to %d", t.Name, which, n))].candidate()
			to.Replicas = w.keepers(t.Name, to.Peer)
			c.Candidate = &to
		}
		n++
		r, err := l.role.Create(s.ctx, c)
		if err == nil && s.alive() {
			w.accepted(t, r.Task.ID)
			w.tracef(w.consumer, "answers %s (%s): existed %v", t.Name, which, r.Existed)
			s.handle(r)
		}
		return err
	})
}

func (w *world) cancel(t *task) {
	wait(w.ctx, t.cancel)
	w.mu.Lock()
	t.cancelled = true
	w.mu.Unlock()
	w.tally.add("cancels", 1)
	w.ask("cancel "+t.Name, func(l *life, s *session) error {
		r, err := l.consumer().Cancel(s.ctx, w.id(t))
		if err == nil {
			w.tracef(w.consumer, "cancels %s", t.Name)
			s.handle(r)
		}
		return err
	})
}

// look asks how a task is.
func (w *world) look(t *task) (app.TaskView, bool) {
	l := w.consumer.current()
	if l == nil || l.current() == nil {
		return app.TaskView{}, false
	}
	v, err := l.consumer().Get(l.ctx, w.id(t))
	if err != nil {
		if !l.gone() {
			w.failf("get %s: %v", t.Name, err)
		}
		return app.TaskView{}, false
	}
	if l.gone() {
		return app.TaskView{}, false
	}
	w.observe(&v, nil, false)
	return v, true
}

// stdout reads the result as a user does.
func (w *world) stdout(l *life, t *task) ([]byte, error) {
	b, err := l.consumer().Result(l.ctx, w.id(t), "stdout")
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(b)
}

// counted tells whether the end of an attempt counts against the most that may be made.
func counted(h domain.HistoryEntry) bool {
	return h.What == "LEASE_LOST" || h.What == "FAILED_AT_PROVIDER" || h.What == "RESULT_INVALID"
}
