package component_test

import (
	"crypto/sha256"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// anonymousNetwork is one in which content is given to those only to whom it is granted.
func anonymousNetwork(t *testing.T) *network {
	n := newNetwork(t)
	n.repo.grants = make(map[pinned]granted)
	return n
}

func anonymousConsumer(c *consumer.Config) { c.Anonymous = true }

func anonymously(change func(*provider.Config)) func(*provider.Config) {
	return func(c *provider.Config) {
		change(c)
		c.Anonymous = true
	}
}

// submitAs submits a task that leaves from a persona.
func (nd *node) submitAs(persona string, spec *taskv1.TaskSpec, p *node) string {
	nd.t.Helper()
	c := p.candidate()
	c.Persona = persona
	r := nd.call(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Create{Create: &taskv1.CreateTask{RequestId: app.NewID(), Spec: spec, Candidate: c}}})
	if f := r.GetFault(); f != nil {
		nd.t.Fatalf("create: %s: %s", f.GetReason(), f.GetMessage())
	}
	return r.GetTask().GetId()
}

// given is the content that a node has granted: by persona and reader.
func (r *repository) given(host string) map[granted1][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[granted1][]string)
	for p, g := range r.grants {
		for _, reader := range g.readers {
			if k := (granted1{g.persona, reader}); p.peer == host && !slices.Contains(out[k], p.CID) {
				out[k] = append(out[k], p.CID)
			}
		}
	}
	return out
}

type granted1 struct{ persona, reader string }

// TestAnonymousContentIsForOne: the same input for two personas and two providers has a name for each pair of them, and each provider gets its own alone. Results are
// for their consumer.
func TestAnonymousContentIsForOne(t *testing.T) {
	t.Parallel()
	n, s := anonymousNetwork(t), newScript()
	a, b, c := n.addProvider(anonymously(withScript(s, 2))), n.addProvider(anonymously(withScript(s, 2))), n.addConsumer(anonymousConsumer)
	data, large := shared(300_000), shared(200_000)
	for _, persona := range []string{"p", "q"} {
		for _, p := range []*node{a, b, a} {
			id := c.submitAs(persona, withInput(step{Name: persona, Show: true}, "input:data", data, large), p)
			c.await(id, "COMPLETED")
			if got := c.result(id, ""); got != string(large)+string(data) {
				t.Fatalf("the result has %d bytes that are not what was sent", len(got))
			}
		}
	}
	names := make(map[string]granted1)
	for k, cids := range n.repo.given(c.peer) {
		if k.persona != "p" && k.persona != "q" || k.reader != a.peer && k.reader != b.peer {
			t.Errorf("content is granted to a stranger, or is of persona %q", k.persona)
		}
		for _, cid := range cids {
			if other, ok := names[cid]; ok {
				t.Errorf("one name is for %v and %v", k, other)
			}
			names[cid] = k
		}
	}
	for _, persona := range []string{"p", "q"} {
		for _, p := range []*node{a, b} {
			if len(n.repo.given(c.peer)[granted1{persona, p.peer}]) == 0 {
				t.Errorf("nothing was made for a provider of persona %q", persona)
			}
		}
	}
	for _, p := range []*node{a, b} {
		for k := range n.repo.given(p.peer) {
			if k.reader != c.peer || k.persona != "" {
				t.Errorf("a result is granted to a stranger, or is of persona %q", k.persona)
			}
		}
	}
	// Each persona has had its own content fetched, since what another has sent must not show; of what was in it there is one copy.
	sum := domain.Hash(sha256.Sum256(data)).String()
	for _, p := range []*node{a, b} {
		copies, err := filepath.Glob(filepath.Join(p.dir, "parts", sum))
		shown, err2 := filepath.Glob(filepath.Join(p.dir, "parts", "*."+sum))
		if err != nil || err2 != nil || len(copies) != 1 || len(shown) != 2 {
			t.Errorf("a provider has %d copies of what two personas sent, and was shown %d contents with it", len(copies), len(shown))
		}
	}
	until(t, "payloads to be let go", func() bool { return len(n.repo.ofKind(c.peer, "payload:")) == 0 })
}

// TestAnonymousContentFollowsItsTask: what was made before there was a provider, or for one that could not be reached, is granted to the one that gets the task, and to
// its persona's host.
func TestAnonymousContentFollowsItsTask(t *testing.T) {
	t.Parallel()
	n, s := anonymousNetwork(t), newScript()
	gone, p, c := n.addProvider(anonymously(withScript(s, 2))), n.addProvider(anonymously(withScript(s, 2))), n.addConsumer(anonymousConsumer)
	n.setRoute(func(_, to string, _ *eventv1.Event) action {
		if to == gone.peer {
			return unreachable
		}
		return pass
	})
	c.mu.Lock()
	c.candidates = func(*taskv1.PlacementNeeded) *taskv1.Candidate {
		to := p.candidate()
		to.Persona = "later"
		return to
	}
	c.mu.Unlock()
	data, large := shared(100_000), shared(200_000)
	spec := func() *taskv1.TaskSpec { return withInput(step{Name: "x", Show: true}, "input:data", data, large) }
	for name, id := range map[string]string{"tried elsewhere": c.submitAs("first", spec(), gone), "no provider at first": c.submit(spec(), nil)} {
		c.await(id, "COMPLETED")
		if got := c.result(id, ""); got != string(large)+string(data) {
			t.Errorf("%s: the result has %d bytes that are not what was sent", name, len(got))
		}
	}
	until(t, "payloads to be let go", func() bool { return len(n.repo.ofKind(c.peer, "payload:")) == 0 })
}

// TestAnonymousRestartGrantsAgain: a consumer that ended between two attempts still knows what it has to grant.
func TestAnonymousRestartGrantsAgain(t *testing.T) {
	t.Parallel()
	n, s := anonymousNetwork(t), newScript()
	gone, p, c := n.addProvider(anonymously(withScript(s, 2))), n.addProvider(anonymously(withScript(s, 2))), n.addConsumer(anonymousConsumer)
	n.setRoute(func(_, to string, _ *eventv1.Event) action {
		if to == gone.peer {
			return lose
		}
		return pass
	})
	data := shared(100_000)
	id := c.submitAs("first", withInput(step{Name: "x", Show: true}, "input:data", data, nil), gone)
	c.restart()
	n.setRoute(func(_, to string, _ *eventv1.Event) action {
		if to == gone.peer {
			return unreachable
		}
		return pass
	})
	c.useProviders(p)
	c.restart() // it tells again what was not acknowledged
	c.await(id, "COMPLETED")
	if got := c.result(id, ""); got != string(data) {
		t.Errorf("the result has %d bytes that are not what was sent", len(got))
	}
}

// TestAnonymousJobSharesNothing: the program of a job is made for each persona and provider, and no shard's payload is made before these are known.
func TestAnonymousJobSharesNothing(t *testing.T) {
	t.Parallel()
	n, prog := anonymousNetwork(t), newProgram()
	a, b, c := n.addProvider(anonymously(prog.at("a", 4))), n.addProvider(anonymously(prog.at("b", 4))), n.addConsumer(anonymousConsumer)
	var turn, strange atomic.Int64
	c.mu.Lock()
	c.candidates = func(n *taskv1.PlacementNeeded) *taskv1.Candidate {
		if n.GetPersonas() != 2 || n.GetJobId() == "" {
			strange.Add(1)
		}
		i := turn.Add(1)
		to := []*node{a, b}[i%2].candidate()
		to.Persona = []string{"p", "p", "q", "q"}[i%4]
		return to
	}
	c.mu.Unlock()
	spec := jobSpec(0)
	spec.Personas = 2
	spec.Task.GetWasm().Module = &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: shared(100_000)}}
	texts := numbered(24)
	job, ended := c.watchJob(c.startJob(spec, texts...), 0)
	if k := job.GetCounts(); job.GetState() != "COMPLETED" || k.GetCompleted() != 24 || job.GetPersonas() != 2 || strange.Load() > 0 {
		t.Fatalf("the job is %v; %d placements did not say how many personas it may have", job, strange.Load())
	}
	checkAll(t, ended, texts)
	names := make(map[string]granted1)
	given := n.repo.given(c.peer)
	for k, cids := range given {
		for _, cid := range cids {
			if other, ok := names[cid]; ok {
				t.Errorf("one name is for %v and %v", k, other)
			}
			names[cid] = k
		}
		if len(cids) != 1 { // the program
			t.Errorf("%v was given %d pieces of content", k, len(cids))
		}
	}
	if len(given) != 4 {
		t.Errorf("content was made for %d pairs of persona and provider, and there are 4", len(given))
	}
}

// TestAnonymousJobOwnsItsPersonas: node is told whose personas they are, so that it counts them after a restart of its own.
func TestAnonymousJobOwnsItsPersonas(t *testing.T) {
	t.Parallel()
	n, prog := anonymousNetwork(t), newProgram()
	prog.hold, prog.gate = func(_, input string) bool { return input == "held" }, make(chan struct{})
	p, c := n.addProvider(anonymously(prog.at("p", 4))), n.addConsumer(anonymousConsumer)
	c.mu.Lock()
	c.candidates = func(*taskv1.PlacementNeeded) *taskv1.Candidate {
		to := p.candidate()
		to.Persona = "t-jobs"
		return to
	}
	c.mu.Unlock()
	id := c.startJob(jobSpec(0), "held")
	personas := func() map[string]string {
		out := make(map[string]string)
		for _, u := range c.call(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Personas{Personas: &taskv1.PersonasQuery{}}}).GetPersonas() {
			out[u.GetPersona()] = u.GetJobId()
		}
		return out
	}
	until(t, "the shard to have left", func() bool { return personas()["t-jobs"] != "" })
	if got := personas()["t-jobs"]; got != id {
		t.Errorf("its persona is of job %q", got)
	}
	close(prog.gate)
	if job, _ := c.watchJob(id, 0); job.GetState() != "COMPLETED" {
		t.Errorf("the job is %v", job)
	}
	until(t, "nothing to need a persona", func() bool { return len(personas()) == 0 })
}

// TestAnonymousReplicas: who is named to keep a result may fetch it, and its consumer may fetch it from there.
func TestAnonymousReplicas(t *testing.T) {
	t.Parallel()
	n, s := anonymousNetwork(t), newScript()
	p, a, c := n.addProvider(anonymously(keeping(s))), n.addProvider(anonymously(keeping(s))), n.addConsumer(func(c *consumer.Config) { c.Anonymous, c.Lease = true, domain.ShortestLease })
	id := c.submitKept(scriptSpec(step{Name: "a", Wait: true, Stdout: 300_000}), 2, p, a)
	c.await(id, "RUNNING")
	c.stop()
	close(s.gate("a"))
	until(t, "another provider to keep the result", func() bool { return n.repo.pinnedFor("replica") == 1 && p.saw(replicaAnswer) })
	p.stop()
	n.repo.mu.Lock()
	for k := range n.repo.grants { // nobody gets anything from it any more
		if k.peer == p.peer {
			delete(n.repo.grants, k)
		}
	}
	n.repo.mu.Unlock()
	c.start()
	c.await(id, "COMPLETED")
	if got := c.result(id, ""); len(got) != 300_000 {
		t.Errorf("the result has %d bytes", len(got))
	}
}

// TestAnonymousContentCannotBeHandedOn: a task whose content is granted to its provider stays there, also where its user would have it handed on; one that has all with it
// may go.
func TestAnonymousContentCannotBeHandedOn(t *testing.T) {
	t.Parallel()
	n, s := anonymousNetwork(t), newScript()
	busy, free := n.addProvider(anonymously(func(c *provider.Config) {
		withScript(s, 1)(c)
		c.Evaluator = domain.TwoChoices{Margin: 0.5}
	})), n.addProvider(anonymously(withScript(s, 4)))
	c := n.addConsumer(func(c *consumer.Config) { c.Anonymous, c.Redirect, c.Lease = true, true, time.Minute })
	offer := free.candidate()
	offer.Metric = &eventv1.Metric{PeerId: free.peer, Version: 1, Queue: &eventv1.Queue{Slots: 4, Capacity: 100}}
	busy.mu.Lock()
	busy.offered = []*taskv1.Candidate{offer}
	busy.mu.Unlock()
	c.await(c.submit(scriptSpec(step{Name: "hog", Wait: true}), busy), "RUNNING")
	small := c.await(c.submit(scriptSpec(step{Name: "small"}), busy), "COMPLETED")
	if small.GetProvider() != free.peer {
		t.Errorf("a task that has all with it was not handed on: %v", details(small))
	}
	held := []string{
		c.submit(withInput(step{Name: "refers"}, "input:data", shared(100_000), nil), busy),
		c.submit(withInput(step{Name: "large"}, "input:small", []byte("!"), shared(100_000)), busy),
	}
	for _, id := range held {
		c.await(id, "ACCEPTED", "RUNNING")
	}
	// Who says that it may be handed on hears that it cannot; what was put away for it is let go.
	yes := true
	before := len(n.repo.ofKind(c.peer, "payload:"))
	asked := withInput(step{Name: "asked"}, "input:data", shared(100_000), shared(100_000))
	asked.Placement = &taskv1.PlacementPolicy{Redirect: &yes}
	f := c.call(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Create{Create: &taskv1.CreateTask{RequestId: app.NewID(), Spec: asked, Candidate: busy.candidate()}}}).GetFault()
	if f.GetReason() != "REDIRECT_NOT_POSSIBLE" || !strings.Contains(f.GetMessage(), "leave --redirect out") {
		t.Errorf("a large task that may be handed on: %v", f)
	}
	until(t, "its payload to be let go", func() bool { return len(n.repo.ofKind(c.peer, "payload:")) == before })
	asked = scriptSpec(step{Name: "asked and small"})
	asked.Placement = &taskv1.PlacementPolicy{Redirect: &yes}
	if task := c.await(c.submit(asked, busy), "COMPLETED"); task.GetProvider() != free.peer {
		t.Errorf("a small task that may be handed on was not: %v", details(task))
	}
	spec := jobSpec(1)
	spec.Task.GetWasm().Module = &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: shared(100_000)}}
	spec.Task.Placement = &taskv1.PlacementPolicy{Redirect: &yes}
	if _, err := c.jobs.CreateJob(c.ctx, &taskv1.CreateJobRequest{RequestId: app.NewID(), Spec: spec}); fault.From(err) == nil || fault.From(err).Reason != "REDIRECT_NOT_POSSIBLE" {
		t.Errorf("a job whose program is large: %v", err)
	}
	spec = jobSpec(1)
	spec.Task.Placement = &taskv1.PlacementPolicy{Redirect: &yes}
	made, err := c.jobs.CreateJob(c.ctx, &taskv1.CreateJobRequest{RequestId: app.NewID(), Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.jobs.AddShards(c.ctx, &taskv1.AddShardsRequest{JobId: made.GetJob().GetId(), Shards: []*taskv1.NewShard{{Name: "large", Content: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: shared(100_000)}}}}})
	if fault.From(err) == nil || fault.From(err).Reason != "REDIRECT_NOT_POSSIBLE" {
		t.Errorf("a shard whose input is large: %v", err)
	}
	close(s.gate("hog"))
	for _, id := range held {
		if task := c.await(id, "COMPLETED"); task.GetProvider() != busy.peer || strings.Contains(strings.Join(happened(task), " "), "REDIRECTED") {
			t.Errorf("it was handed on: %v", details(task))
		}
	}
}

// TestAnonymousShardsWaitForAProvider: a shard's task whose payload is made for its provider may find none for a while.
func TestAnonymousShardsWaitForAProvider(t *testing.T) {
	t.Parallel()
	n, prog := newNetwork(t), newProgram()
	p, c := n.addProvider(anonymously(prog.at("a", 2))), n.addConsumer(anonymousConsumer)
	var asked atomic.Int32
	c.mu.Lock()
	c.candidates = func(need *taskv1.PlacementNeeded) *taskv1.Candidate {
		if asked.Add(1) <= 2 {
			n.wg.Go(func() { c.place(need) }) // as a node that goes on looking
			return nil
		}
		return p.candidate()
	}
	c.mu.Unlock()
	texts := numbered(2)
	_, ended := c.watchJob(c.startJob(jobSpec(len(texts)), texts...), 0)
	checkAll(t, ended, texts)
}
