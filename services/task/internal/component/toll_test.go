package component_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/puzzle"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// The broker's verdicts.
const (
	verdictRejected   = 2
	verdictMisconduct = 4
)

// quick is a puzzle's work that costs nothing, for tests of who has to do it.
func quick(text []byte, nonce domain.Nonce, found [16]byte) uint64 {
	sum := sha256.Sum256(append(append(slices.Clone(text), nonce[:]...), found[:]...))
	return binary.BigEndian.Uint64(sum[:])
}

// asking has a provider ask strangers for a price.
func asking(r domain.TollRules, change func(*provider.Config)) func(*provider.Config) {
	return func(c *provider.Config) {
		c.Price = provider.Price{Work: quick, Rules: r}
		if change != nil {
			change(c)
		}
	}
}

// paying is an anonymous consumer that solves puzzles.
func paying(c *consumer.Config) { c.Anonymous, c.Puzzle = true, quick }

// toldPrice is the provider as a persona knows it that was told its price.
func (nd *node) toldPrice() *taskv1.Candidate {
	nd.t.Helper()
	c := nd.candidate()
	c.Puzzle = must[*taskv1.DescribeResponse](nd.t)(nd.client.Describe(nd.ctx, &taskv1.DescribeRequest{})).GetPuzzle()
	return c
}

// useTold is useProviders with providers that tell their price.
func (nd *node) useTold(ps ...*node) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	nd.candidates = func(p *taskv1.PlacementNeeded) *taskv1.Candidate {
		for _, c := range ps {
			if p.GetExcluded()[c.peer] == "" {
				return c.toldPrice()
			}
		}
		return nil
	}
}

// placements are what has happened to a task, but for what depends on how long its run took.
func placements(t *taskv1.Task) []string {
	return slices.DeleteFunc(happened(t), func(what string) bool { return what == "ACCEPTED" || what == "STARTED" })
}

// TestStrangersPay: who knows the price pays at once, who does not is told and comes again, and what they send has one form.
func TestStrangersPay(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	var asked atomic.Uint32
	p, free := n.addProvider(anonymously(asking(domain.TollRules{Min: 16}, func(c *provider.Config) { c.Price.Work = puzzle.Work }))), n.addProvider(nil)
	real := func(c *consumer.Config) { c.Anonymous, c.Puzzle = true, puzzle.Work }
	knows, learns := n.addConsumer(real), n.addConsumer(real)
	knows.useTold(p)
	task := knows.await(knows.submit(sumSpec("1", "2"), nil), "COMPLETED")
	if want := []string{"CREATED", "SUBMITTED", "RESULT", "COMPLETED"}; !slices.Equal(placements(task), want) {
		t.Errorf("who knows the price: %v", details(task))
	}
	learns.mu.Lock()
	learns.candidates = func(need *taskv1.PlacementNeeded) *taskv1.Candidate {
		asked.Store(need.GetEfforts()[p.peer])
		if need.GetMaxEffort() != domain.DefaultMaxEffort {
			t.Errorf("node is told that %d is paid", need.GetMaxEffort())
		}
		return p.candidate()
	}
	learns.mu.Unlock()
	task = learns.await(learns.submit(sumSpec("1", "2"), nil), "COMPLETED")
	if want := []string{"CREATED", "SUBMITTED", "REFUSED", "SUBMITTED", "RESULT", "COMPLETED"}; !slices.Equal(placements(task), want) || asked.Load() != 16 {
		t.Errorf("who learns the price, of which node hears %d: %v", asked.Load(), details(task))
	}
	knows.useProviders(free)
	knows.await(knows.submit(sumSpec("1", "2"), nil), "COMPLETED")
	sizes := map[int]bool{}
	for _, s := range append(p.submitted(), free.submitted()...) {
		sizes[proto.Size(s)] = true
		if len(s.GetPuzzle()) != domain.PaymentSize {
			t.Errorf("a submission has %d bytes of payment", len(s.GetPuzzle()))
		}
	}
	if len(sizes) != 1 {
		t.Errorf("submissions have the sizes %v", sizes)
	}
}

// TestWhoNeedNotPay: peers that the operator has named, and in open mode everybody unless the operator says so.
func TestWhoNeedNotPay(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	friend, listed, stranger := n.addConsumer(nil), n.addConsumer(nil), n.addConsumer(nil)
	p := n.addProvider(asking(domain.TollRules{Min: 16}, func(c *provider.Config) {
		c.Price.Free, c.Price.FreeAllowed, c.Policy.Allow = []string{friend.peer}, true, []string{listed.peer}
	}))
	q := n.addProvider(asking(domain.TollRules{Min: 16}, func(c *provider.Config) { c.Price.Free = []string{friend.peer} }))
	for _, c := range []*node{friend, listed} {
		at := p
		if c == friend {
			at = q // who is not on the list of those who may submit may not, whatever it pays
		}
		if task := c.await(c.submit(sumSpec("1"), at), "COMPLETED"); slices.Contains(happened(task), "REFUSED") {
			t.Errorf("%v", details(task))
		}
	}
	task := stranger.get(stranger.submit(sumSpec("1"), q))
	until(t, "the stranger is told the price", func() bool {
		task = stranger.get(task.GetId())
		return strings.Contains(fmt.Sprint(details(task)), "PUZZLE_REQUIRED")
	})
}

// sold is a submission whose attempt is paid for by the payment.
func (nd *node) sold(task string, pay []byte) *eventv1.Event {
	ciphertext := []byte("nonsense")
	hash := sha256.Sum256(ciphertext)
	payload, err := proto.Marshal(&eventv1.TaskSubmission{TaskId: task, Attempt: 1, Type: "sum", ResultRecipient: "age1pq1nobody",
		PayloadHash: hash[:], PayloadSize: uint64(len(ciphertext)), Keep: durationpb.New(time.Hour), Puzzle: pay})
	if err != nil {
		nd.t.Fatal(err)
	}
	ev := &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, Payload: payload, Author: nd.peer, Attachment: nd.sealedBadly(ciphertext)}
	return ev
}

func solved(provider, task string, p *eventv1.Puzzle) []byte {
	pay := domain.Payment{Effort: p.GetEffort(), Nonce: domain.Nonce(p.GetNonce())}
	for i := uint64(0); ; i++ {
		binary.BigEndian.PutUint64(pay.Found[:], i)
		if domain.Pays(quick(domain.PuzzleText(provider, task, 1), pay.Nonce, pay.Found), pay.Effort) {
			return pay.Bytes()
		}
	}
}

// TestFalsePayments: what cannot be a mistake costs the connection; what can is told the price.
func TestFalsePayments(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	const effort = 1 << 14 // a payment for something else pays here once in so many runs
	p := n.addProvider(asking(domain.TollRules{Min: effort}, nil))
	price := p.toldPrice().GetPuzzle()
	stale := proto.CloneOf(price)
	stale.Nonce = make([]byte, 16)
	little := proto.CloneOf(price)
	little.Effort = effort / 2
	one, two := n.addConsumer(nil), n.addConsumer(nil)
	task, other := app.NewID(), app.NewID()
	good := solved(p.peer, task, price)
	for _, c := range []struct {
		name    string
		from    *node
		task    string
		pay     []byte
		verdict uint32
		refused bool
	}{
		{"nothing", one, task, nil, 0, true},
		{"too little", one, task, solved(p.peer, task, little), 0, true},
		{"for a nonce of nobody", one, task, solved(p.peer, task, stale), 0, true},
		{"for another provider", one, task, solved(one.peer, task, price), verdictMisconduct, false},
		{"for another task", one, other, good, verdictMisconduct, false},
		{"no solution", one, task, append(slices.Clone(good[:17]), make([]byte, 16)...), verdictMisconduct, false},
		{"no payment at all", one, task, []byte("money"), verdictRejected, false},
		{"enough", one, task, good, 0, false},
		{"somebody else's", two, task, good, verdictMisconduct, false},
	} {
		before := one.refusals()
		d, err := p.deliver(c.from.peer, c.from.sold(c.task, c.pay))
		if err != nil || d.GetVerdict() != c.verdict {
			t.Errorf("%s: the verdict is %v, %v", c.name, d, err)
		}
		if c.refused {
			until(t, c.name+" is refused with the price", func() bool { return one.refusals() > before })
		} else if one.refusals() != before {
			t.Errorf("%s is refused", c.name)
		}
	}
}

// refusals counts those that this node was sent for the price, with the price.
func (nd *node) refusals() (count int) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	for _, ev := range nd.seen {
		var m eventv1.TaskRefused
		if ev.GetType() == eventv1.EventType_EVENT_TYPE_TASK_REFUSED && proto.Unmarshal(ev.GetPayload(), &m) == nil && m.GetReason() == app.ReasonPuzzleRequired && m.GetPuzzle() != nil {
			count++
		}
	}
	return count
}

// TestFlood: identities that cost nothing and pay nothing make the price rise to where they are refused before they cost more than a look, and who pays gets work done.
func TestFlood(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p := n.addProvider(anonymously(asking(domain.TollRules{Rate: 20}, func(c *provider.Config) { c.Policy.Slots, c.Policy.Capacity, c.Price.Told = 1, 64, 5 })))
	honest := n.addConsumer(paying)
	honest.useTold(p)
	if task := honest.await(honest.submit(sumSpec("1"), nil), "COMPLETED"); p.toldPrice().GetPuzzle().GetEffort() != 0 {
		t.Fatalf("a quiet provider asks for something: %v", details(task))
	}
	var sent, taken, rejected atomic.Int64
	stop := make(chan struct{})
	for range 4 {
		n.wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				nobody, _ := newPeer()
				d, err := p.deliver(nobody, (&node{t: t, peer: nobody}).sold(app.NewID(), nil))
				if err != nil {
					return
				}
				sent.Add(1)
				switch d.GetVerdict() {
				case 0:
					taken.Add(1)
				case verdictRejected:
					rejected.Add(1)
				}
			}
		})
	}
	until(t, "the price rises", func() bool { return p.toldPrice().GetPuzzle().GetEffort() > 0 })
	for i := range 20 {
		if task := honest.await(honest.submit(sumSpec(fmt.Sprint(i), "1"), nil), "COMPLETED"); task.GetAttempts() > 3 {
			t.Errorf("who pays is refused: %v", details(task))
		}
	}
	until(t, "most of the flood is turned away without an event", func() bool { return rejected.Load() > 300 })
	if effort := p.toldPrice().GetPuzzle().GetEffort(); effort == 0 {
		t.Error("the price has fallen to nothing while the flood goes on")
	}
	close(stop)
	t.Logf("of %d submissions of the flood %d were rejected", sent.Load(), rejected.Load())
}

// TestTooDear: whoever asks for more than is paid gets no task, whether that is known before or said with a refusal.
func TestTooDear(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	dear, cheap := n.addProvider(anonymously(asking(domain.TollRules{Min: 64}, nil))), n.addProvider(anonymously(asking(domain.TollRules{Min: 4}, nil)))
	thrifty := func(c *consumer.Config) {
		paying(c)
		c.MaxEffort = 16
	}
	knows, learns := n.addConsumer(thrifty), n.addConsumer(thrifty)
	knows.useTold(dear, cheap)
	learns.useProviders(dear, cheap)
	for c, want := range map[*node][]string{knows: {"CREATED", "TOO_DEAR", "SUBMITTED", "RESULT", "COMPLETED"},
		learns: {"CREATED", "SUBMITTED", "REFUSED", "SUBMITTED", "REFUSED", "SUBMITTED", "RESULT", "COMPLETED"}} {
		task := c.await(c.submit(sumSpec("1"), nil), "COMPLETED")
		if !slices.Equal(placements(task), want) || task.GetProvider() != cheap.peer || !strings.Contains(fmt.Sprint(details(task)), "pays 16 at most (consumer.max_effort)") {
			t.Errorf("want %v: %v", want, details(task))
		}
	}
	if len(dear.submitted()) != 1 {
		t.Errorf("it got %d submissions", len(dear.submitted()))
	}
}

// TestPriceOfShards: a shard's task, which is in memory alone until it has a provider, finds one that is not too dear, and is paid for.
func TestPriceOfShards(t *testing.T) {
	t.Parallel()
	n, prog := newNetwork(t), newProgram()
	with := func(c *provider.Config) { c.Executors = []app.Executor{programAt{program: prog}} }
	dear, cheap := n.addProvider(anonymously(asking(domain.TollRules{Min: 64}, with))), n.addProvider(anonymously(asking(domain.TollRules{Min: 4}, with)))
	c := n.addConsumer(func(c *consumer.Config) {
		paying(c)
		c.MaxEffort = 16
	})
	c.useTold(dear, cheap)
	texts := numbered(5)
	job, ended := c.watchJob(c.startJob(jobSpec(len(texts)), texts...), 0)
	if job.GetState() != "COMPLETED" || len(dear.submitted()) != 0 || len(cheap.submitted()) != len(texts) {
		t.Errorf("the job is %s, of %d and %d submissions", job.GetState(), len(dear.submitted()), len(cheap.submitted()))
	}
	checkAll(t, ended, texts)
}

// TestPayingIsSeenAndEnds: who looks at a task that is paid for longer than two seconds is told, and to cancel it ends the work.
func TestPayingIsSeenAndEnds(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	var tries atomic.Int64
	p := n.addProvider(anonymously(asking(domain.TollRules{Min: 1 << 14}, nil)))
	c := n.addConsumer(func(c *consumer.Config) {
		c.Anonymous, c.Puzzle = true, func([]byte, domain.Nonce, [16]byte) uint64 { // nothing solves it
			tries.Add(1)
			return 1<<64 - 1
		}
	})
	c.useTold(p)
	id := c.submit(sumSpec("1"), nil)
	until(t, "the task tells what it does", func() bool { return strings.Contains(c.get(id).GetProgress().GetText(), "a puzzle of effort 16384") })
	if state := c.get(id).GetState(); state != "PENDING" {
		t.Errorf("it is %s", state)
	}
	must[*taskv1.CancelTaskResponse](t)(c.client.CancelTask(t.Context(), &taskv1.CancelTaskRequest{TaskId: id}))
	if task := c.await(id, "CANCELLED"); task.GetProgress() != nil || len(p.submitted()) != 0 {
		t.Errorf("it is %v, after %d submissions", task, len(p.submitted()))
	}
	until(t, "nobody works on it", func() bool {
		before := tries.Load()
		pause(20 * time.Millisecond)
		return tries.Load() == before
	})
}

// TestHandedOnUnpaid: a peer that nobody knows could hand tasks on that nobody has paid for. They are refused, and their consumers come themselves.
func TestHandedOnUnpaid(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, stranger, c := n.addProvider(asking(domain.TollRules{Min: 4}, nil)), n.addProvider(nil), n.addConsumer(nil)
	signed := c.unopened(1, 0, true)
	attachment := signed.GetAttachment()
	signed.Attachment = nil
	payload, err := proto.Marshal(&eventv1.TaskForceSubmission{Submission: signed, Path: []string{stranger.peer}})
	if err != nil {
		t.Fatal(err)
	}
	force := &eventv1.Event{Id: app.NewID(), Type: eventv1.EventType_EVENT_TYPE_TASK_FORCE_SUBMISSION, Payload: payload, Attachment: attachment}
	if d, err := p.deliver(stranger.peer, force); err != nil || d.GetVerdict() != 0 {
		t.Errorf("%v, %v", d, err)
	}
	until(t, "its consumer is told the price", func() bool { return c.refusals() == 1 })
}

// TestRejectedForThePrice: while strangers come in such numbers that a provider does not tell each of them the price, one that did not know it asks for it and comes back.
func TestRejectedForThePrice(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(anonymously(asking(domain.TollRules{Min: 16}, func(c *provider.Config) { c.Price.Told = 1 }))), n.addConsumer(paying)
	nobody := n.addConsumer(nil)
	until(t, "it rejects strangers", func() bool {
		d, err := p.deliver(nobody.peer, nobody.sold(app.NewID(), nil))
		return err == nil && d.GetVerdict() == verdictRejected
	})
	var asked atomic.Int32
	c.mu.Lock()
	c.candidates = func(need *taskv1.PlacementNeeded) *taskv1.Candidate {
		switch {
		case need.GetExcluded()[p.peer] != "":
			return nil
		case asked.Add(1) == 1:
			return p.candidate()
		}
		return p.toldPrice()
	}
	c.mu.Unlock()
	task := c.await(c.submit(sumSpec("1"), nil), "COMPLETED")
	if !slices.Contains(happened(task), "REJECTED") || !strings.Contains(fmt.Sprint(details(task)), "PUZZLE_REQUIRED") {
		t.Errorf("%v", details(task))
	}
}

// TestCreatingWaitsForNoPuzzle: a task whose candidate asks for something is made at once, and paid for after.
func TestCreatingWaitsForNoPuzzle(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(asking(domain.TollRules{Min: 16}, nil)), n.addConsumer(func(c *consumer.Config) { c.Puzzle = quick })
	c.useTold(p)
	r := c.call(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Create{Create: &taskv1.CreateTask{RequestId: app.NewID(), Spec: sumSpec("1"), Candidate: p.toldPrice()}}})
	if r.GetTask().GetState() != "PENDING" || r.GetPlacement() == nil {
		t.Errorf("it is %v", r)
	}
	task := c.await(r.GetTask().GetId(), "COMPLETED")
	if want := []string{"CREATED", "SUBMITTED", "RESULT", "COMPLETED"}; !slices.Equal(placements(task), want) {
		t.Errorf("%v", details(task))
	}
}
