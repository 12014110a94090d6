package simulation_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/adapter/memstore"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// faultsEnd is how long the world is hostile. After that everything has to come to its end.
const faultsEnd = 90 * time.Second

// world is a consumer, two or three providers and a network, in a bubble of virtual time.
type world struct {
	t         testing.TB
	dice      *dice
	odds      chances
	tally     *tally
	begin     time.Time
	ctx       context.Context // ends when the world does
	cancelCtx context.CancelFunc
	consumer  *side
	providers []*side
	peers     map[string]*side
	tasks     []*task
	byName    map[string]*task

	mu      sync.Mutex
	names   map[string]string // of tasks, by id
	ran     map[string]*runs
	excuses map[string]bool
	trace   []line
	failed  []string
	quiet   bool // what follows is not worth a trace

	anonymous bool        // each task leaves from a persona of its own
	queries   []time.Time // when a provider was asked what has become of its tasks
}

type line struct {
	at   time.Duration
	text string
}

func newWorld(t testing.TB, seed uint64, dir string, tl *tally) *world {
	w := &world{t: t, dice: newDice(seed), tally: tl, peers: make(map[string]*side), byName: make(map[string]*task), names: make(map[string]string), ran: make(map[string]*runs),
		excuses: make(map[string]bool), begin: time.Now()}
	w.odds = w.dice.chances()
	w.ctx, w.cancelCtx = context.WithCancel(context.Background())
	w.consumer = w.node("consumer", dir)
	for i := range 2 + w.dice.below(2, "providers") {
		p := w.node(fmt.Sprintf("provider%d", i+1), dir)
		p.key = sealingKey("key of " + p.name)
		limits := provider.DefaultLimits
		if i == 0 {
			limits.Max.Memory = tooMuch - 1
		}
		p.policy = provider.Policy{Slots: 1 + w.dice.below(2, p.name+" slots"), Capacity: pick(w.dice, p.name+" capacity", 2, 4, 100), PerPeer: pick(w.dice, p.name+" quota", 3, 100, 100), Limits: limits}
		if effort := pick(w.dice, p.name+" price", uint32(0), 0, 4, 64); effort > 0 { // more than that none asks for, so that what happens is the seed's
			p.price = provider.Price{Work: sum, Rules: domain.TollRules{Min: effort, Max: effort}}
		}
		w.providers = append(w.providers, p)
	}
	w.deal()
	return w
}

func (w *world) node(name, dir string) *side {
	s := &side{w: w, name: name, peer: "12D3KooW" + name, store: memstore.New(), content: newContent(), disk: newDisk(), dir: dir}
	w.peers[s.peer] = s
	return s
}

// hostile tells whether faults still happen.
func (w *world) hostile() bool { return time.Since(w.begin) < faultsEnd }

// excuse notes that something has happened after which some things may be left until their time is over.
func (w *world) excuse(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.excuses[what] = true
}

func (w *world) know(id, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name != "" && w.names[id] == "" {
		w.names[id] = name
	}
}

// label is a task's name: its id is random, and would be another in every run.
func (w *world) label(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[id]
}

func (w *world) nameOf(peer string) string {
	if s := w.peers[peer]; s != nil {
		return s.name
	}
	return "nobody"
}

func (w *world) tracef(s *side, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.quiet {
		return
	}
	w.trace = append(w.trace, line{time.Since(w.begin), s.name + " " + fmt.Sprintf(format, args...)})
}

func (w *world) failf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	w.failed = append(w.failed, text)
	w.trace = append(w.trace, line{time.Since(w.begin), "WRONG: " + text})
}

// ordered is the trace, where what has happened within one instant is put in an order.
func (w *world) ordered() []line {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := slices.Clone(w.trace)
	slices.SortStableFunc(lines, func(a, b line) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return strings.Compare(a.text, b.text)
	})
	return lines
}

func (w *world) runs(name string, change func(*runs)) runs {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.ran[name]
	if r == nil {
		r = &runs{attempts: make(map[uint32]bool), finished: make(map[uint32]map[string]int)}
		w.ran[name] = r
	}
	change(r)
	return *r
}

func (l *life) consumer() *consumer.Service {
	c, ok := l.role.(*consumer.Service)
	if !ok {
		panic("this is a provider")
	}
	return c
}

// accepted notes the id that a request was answered with.
func (w *world) accepted(t *task, id string) {
	w.mu.Lock()
	was := t.id
	t.id = id
	w.mu.Unlock()
	if was != "" && was != id {
		w.failf("%s is two tasks", t.Name)
	}
}

func (w *world) id(t *task) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return t.id
}

// observe looks at what a user is told of a task.
func (w *world) observe(v *app.TaskView, stdout []byte, has bool) {
	t := w.byName[v.RequestID]
	if t == nil {
		w.failf("a task that nobody asked for: %q", v.RequestID)
		return
	}
	if has && !bytes.Equal(stdout, t.want) {
		w.failf("%s printed %.100q", t.Name, stdout)
	}
	w.mu.Lock()
	end := t.end
	if v.State.Terminal() && end == nil {
		t.end = v
	}
	w.mu.Unlock()
	if end != nil && (v.State != end.State || reasonOf(v.Error) != reasonOf(end.Error) || code(v) != code(end)) {
		if v.State.Terminal() || v.Revision > end.Revision { // what was said before the end may be heard after it
			w.failf("%s was told to be %s %s, and then %s %s", t.Name, end.State, reasonOf(end.Error), v.State, reasonOf(v.Error))
		}
	}
}

func reasonOf(f *domain.Failure) string {
	if f == nil {
		return ""
	}
	return f.Reason
}

func code(v *app.TaskView) int32 {
	if v.ExitCode == nil {
		return -1
	}
	return *v.ExitCode
}

// rejected notes an event that was held against its sender, although nobody lies here.
func (w *world) rejected(to *side, key, reason string) {
	w.failf("%s rejects %s: %s", to.name, key, reason)
}
