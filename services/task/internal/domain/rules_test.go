package domain

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

var t0 = time.Unix(1_700_000_000, 0)

func placed(t *testing.T, p Policy) *Task {
	t.Helper()
	x := NewTask(Task{ID: "t", Clocks: DefaultClocks, Policy: p}, t0)
	if err := x.Place(t0, Attempt{Peer: "a"}, ""); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestClocksFollowTheState(t *testing.T) {
	x := NewTask(Task{Clocks: Clocks{Placement: time.Minute, Queue: 2 * time.Minute, Run: 3 * time.Minute, Collection: 4 * time.Minute, Total: time.Hour}, Policy: Policy{MaxAttempts: 3}}, t0)
	check := func(want Clock, at time.Time) {
		t.Helper()
		if got, c := x.Deadline(); c != want || !got.Equal(at) {
			t.Fatalf("%s: the %s clock at %v, want %s at %v", x.State, c, got.Sub(t0), want, at.Sub(t0))
		}
	}
	now := t0
	step := func(f func() error) {
		t.Helper()
		now = now.Add(10 * time.Second)
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	check(ClockPlacement, t0.Add(time.Minute))
	step(func() error { return x.Place(now, Attempt{Peer: "a"}, "") })
	check(ClockPlacement, t0.Add(time.Minute))
	step(func() error { return x.Accept(now, 1, "a", "") })
	check(ClockQueue, now.Add(2*time.Minute))
	step(func() error { return x.EndAttempt(now, 1, "", End{What: "LEASE_LOST", Reason: "LEASE_LOST"}) })
	check(ClockPlacement, now.Add(time.Minute))
	step(func() error { return x.Place(now, Attempt{Peer: "b"}, "") })
	step(func() error { return x.Start(now, 2, "b") })
	check(ClockRun, now.Add(3*time.Minute))
	step(func() error { return x.Receive(now, Receipt{Attempt: 2, Peer: "b"}) })
	check(ClockCollection, now.Add(4*time.Minute))
	now = t0.Add(58 * time.Minute)
	x.Receipt.At = now
	check(ClockTotal, t0.Add(time.Hour))
	step(func() error { return x.Expire(now, ClockTotal) })
	if x.Error.Reason != "TOTAL_CLOCK" || !strings.Contains(x.Error.Message, "1h0m0s") || !strings.Contains(x.Error.Message, "LEASE_LOST") {
		t.Fatalf("the error is %+v", x.Error)
	}
}

func TestRefusalsAreNoAttemptsAndExpire(t *testing.T) {
	x := placed(t, Policy{MaxAttempts: 1})
	now := t0
	for i := uint32(1); i <= 5; i++ {
		if err := x.EndAttempt(now, i, "a", End{What: "REFUSED", Reason: "QUEUE_FULL", RetryAfter: time.Second}); err != nil {
			t.Fatal(err)
		}
		ex, next := x.ExcludedNow(now)
		if ex["a"] != "QUEUE_FULL" || !next.Equal(now.Add(time.Second)) {
			t.Fatalf("excluded: %v until %v", ex, next)
		}
		now = now.Add(time.Second)
		if ex, _ := x.ExcludedNow(now); len(ex) != 0 {
			t.Fatalf("excluded afterwards: %v", ex)
		}
		if err := x.Place(now, Attempt{Peer: "a"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.EndAttempt(now, 6, "", End{What: "LEASE_LOST", Reason: "LEASE_LOST"}); err != nil || x.State != Failed || x.Error.Reason != "ATTEMPTS_EXHAUSTED" {
		t.Fatalf("after the only attempt: %s, %v, %v", x.State, x.Error, err)
	}
}

func TestPlacementsAreBounded(t *testing.T) {
	x := placed(t, Policy{MaxAttempts: 3})
	for i := uint32(1); x.State != Failed; i++ {
		if i > MaxPlacements {
			t.Fatal("it goes on for ever")
		}
		if err := x.EndAttempt(t0, i, "a", End{What: "REFUSED", Reason: "NO", RetryAfter: 1}); err != nil {
			t.Fatal(err)
		}
		if x.State == Pending {
			if err := x.Place(t0, Attempt{Peer: "a"}, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(x.History) > maxHistory {
		t.Fatalf("the history has %d entries", len(x.History))
	}
}

func TestResultOfAnEarlierAttemptCounts(t *testing.T) {
	x := placed(t, Policy{MaxAttempts: 3})
	if err := errors.Join(x.EndAttempt(t0, 1, "", End{What: "LEASE_LOST", Reason: "LEASE_LOST"}), x.Place(t0, Attempt{Peer: "b"}, ""), x.Start(t0, 2, "b")); err != nil {
		t.Fatal(err)
	}
	if err := x.Receive(t0, Receipt{Attempt: 1, Peer: "stranger"}); !errors.Is(err, ErrNotHolder) {
		t.Fatalf("a stranger's receipt: %v", err)
	}
	if err := errors.Join(x.Receive(t0, Receipt{Attempt: 1, Peer: "a", ExitCode: 7}), x.Settle(t0, &Result{})); err != nil {
		t.Fatal(err)
	}
	if x.State != Completed || *x.ExitCode != 7 || x.Attempts[1].Ended == "" {
		t.Fatalf("the task is %+v", x)
	}
}

func TestStillHeldGivesTime(t *testing.T) {
	x := placed(t, Policy{MaxAttempts: 3})
	if err := x.EndAttempt(t0, 1, "", End{What: "LEASE_LOST", Reason: "LEASE_LOST"}); err != nil {
		t.Fatal(err)
	}
	later := t0.Add(4 * time.Minute)
	if !x.StillHeld(later, 1, "a") || x.StillHeld(later, 1, "b") {
		t.Fatal("who holds it")
	}
	if at, c := x.Deadline(); c != ClockPlacement || !at.Equal(later.Add(x.Clocks.Placement)) {
		t.Fatalf("the %s clock at %v", c, at)
	}
}

func TestRedirectsAreBounded(t *testing.T) {
	x := placed(t, Policy{MaxAttempts: 3, Redirect: true})
	if err := x.Redirect(t0, 1, "a", "b", nil, ""); err != nil {
		t.Fatal(err)
	}
	if err := x.Redirect(t0, 1, "b", "c", nil, ""); err == nil {
		t.Fatal("a second hop")
	}
	if err := x.Redirect(t0, 1, "b", "a", nil, ""); err == nil {
		t.Fatal("a circle")
	}
	y := placed(t, Policy{MaxAttempts: 3})
	if err := y.Redirect(t0, 1, "a", "b", nil, ""); err == nil {
		t.Fatal("it was not allowed")
	}
	// Who handed it on may still say that it failed, until the next one has answered.
	if err := x.Clone().EndAttempt(t0, 1, "a", End{What: "REFUSED", Reason: "REDIRECT_FAILED"}); err != nil {
		t.Fatal(err)
	}
	if err := x.Accept(t0, 1, "b", ""); err != nil {
		t.Fatal(err)
	}
	if err := x.EndAttempt(t0, 1, "a", End{What: "REFUSED", Reason: "REDIRECT_FAILED"}); err == nil {
		t.Fatal("a late refusal")
	}
}

func TestCancelWaitsForItsProvider(t *testing.T) {
	x := placed(t, Policy{MaxAttempts: 3})
	if done, err := x.RequestCancel(t0, time.Second); done || err != nil {
		t.Fatal(done, err)
	}
	if at, c := x.Deadline(); c != ClockCancel || !at.Equal(t0.Add(time.Second)) {
		t.Fatalf("the %s clock at %v", c, at)
	}
	if err := x.EndAttempt(t0, 1, "a", End{What: "REFUSED", Reason: "NO"}); err != nil || x.State != Cancelled {
		t.Fatalf("%s, %v", x.State, err)
	}
	if done, err := x.RequestCancel(t0, time.Second); !done || err != nil {
		t.Fatal("a second cancel")
	}
}

func TestHistoryKeepsItsEnds(t *testing.T) {
	x := NewTask(Task{}, t0)
	for range 1000 {
		x.note(t0, "X", "", strings.Repeat("ä", maxDetail))
	}
	x.note(t0, "LAST", "", "")
	if len(x.History) > maxHistory || x.History[0].What != "CREATED" || x.History[len(x.History)-1].What != "LAST" || len(x.History[1].Detail) > maxDetail+3 {
		t.Fatalf("%d entries", len(x.History))
	}
}

func TestGrant(t *testing.T) {
	p := LimitsPolicy{Default: Limits{Time: time.Minute, Memory: 64 << 20, Output: 1 << 20}, Max: Limits{Time: time.Hour, Memory: 1 << 30, Output: 10 << 20}}
	if got, err := p.Grant(Limits{}); err != nil || got != p.Default {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := p.Grant(p.Max); err != nil || got != p.Max {
		t.Fatalf("%+v, %v", got, err)
	}
	for want, l := range map[string]Limits{"time is 2h0m0s, and this provider grants at most 1h0m0s": {Time: 2 * time.Hour},
		"memory is 10GiB, and this provider grants at most 1GiB": {Memory: 10 << 30}, "output is 10485761 bytes, and this provider grants at most 10MiB": {Output: 10<<20 + 1}} {
		if _, err := p.Grant(l); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if got, err := p.Capped(Limits{Memory: 32 << 20}).Grant(Limits{}); err != nil || got.Memory != 32<<20 {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestEntryRunsAndEndsOnce(t *testing.T) {
	e := &Entry{State: Accepted, Sub: Submission{Keep: time.Hour}}
	for i := range 3 {
		if err := e.Start(t0); err != nil || e.Runs != uint32(i+1) {
			t.Fatal(e.Runs, err)
		}
	}
	if e.Collect(t0, time.Hour) {
		t.Fatal("collected while it runs")
	}
	if err := e.End(t0, Outcome{Cause: CauseCancelled}); err != nil || e.State != Cancelled || !e.ForgetAt.Equal(t0.Add(time.Hour)) {
		t.Fatalf("%+v, %v", e, err)
	}
	if err := e.End(t0, Outcome{}); err == nil {
		t.Fatal("a second end")
	}
	if !e.Collect(t0, 2*time.Hour) || e.Collect(t0, time.Hour) || !e.ForgetAt.Equal(t0.Add(2*time.Hour)) {
		t.Fatal("collected once")
	}
}

func TestScore(t *testing.T) {
	full := Resources{Known: true, MHz: 5000, MemoryTotal: 100, MemoryFree: 100, GPUMemory: 80 << 30}
	for want, r := range map[float64]Resources{
		0:    {MHz: 9000, MemoryTotal: 1, MemoryFree: 1}, // nothing is known of it
		1:    full,
		0.45: {Known: true, MHz: 2500, Load: 0.5, MemoryTotal: 100, MemoryFree: 70},
	} {
		if got := Score(r); math.Abs(got-want) > 1e-9 {
			t.Errorf("%+v scores %v, want %v", r, got, want)
		}
	}
	lie := Resources{Known: true, MHz: 1e12, Load: -5, MemoryTotal: 1, MemoryFree: 1 << 60, GPUMemory: 1 << 60}
	if Score(lie) != 1 {
		t.Errorf("a lie scores %v", Score(lie))
	}
	if s := Score(Resources{Known: true, MHz: math.NaN(), Load: math.NaN()}); s != 0 {
		t.Errorf("not a number scores %v", s)
	}
}

func TestEvaluators(t *testing.T) {
	queue := func(p, r, s int) Resources {
		return Resources{Known: true, Queue: Queue{Pending: p, Running: r, Slots: s, Capacity: 100}}
	}
	two := TwoChoices{Margin: 0.5}
	for name, c := range map[string]struct {
		own    Resources
		others []Contender
		want   int
	}{
		"a free slot":           {queue(0, 1, 2), []Contender{{"b", queue(0, 0, 8)}}, -1},
		"nobody else":           {queue(9, 2, 2), nil, -1},
		"the better of two":     {queue(9, 2, 2), []Contender{{"b", queue(4, 2, 2)}, {"c", queue(1, 2, 2)}}, 1},
		"only two are asked":    {queue(9, 2, 2), []Contender{{"b", queue(9, 2, 2)}, {"c", queue(9, 2, 2)}, {"d", queue(0, 0, 2)}}, -1},
		"within the margin":     {queue(1, 2, 2), []Contender{{"b", queue(0, 2, 2)}}, -1},
		"one without a metric":  {queue(9, 2, 2), []Contender{{"b", Resources{}}}, -1},
		"slots count, not only": {queue(4, 4, 4), []Contender{{"b", queue(3, 1, 1)}}, -1},
	} {
		if got := two.Decide(c.own, c.others); got.Contender != c.want || got.Contender >= 0 && got.Reason == "" {
			t.Errorf("two-choices, %s: %+v", name, got)
		}
	}
	best := BestMetric{Margin: 0.05}
	own := Resources{Known: true, MHz: 2500, MemoryTotal: 2, MemoryFree: 1}
	better := Resources{Known: true, MHz: 5000, MemoryTotal: 2, MemoryFree: 2}
	full := better
	full.Queue = Queue{Pending: 5, Capacity: 5}
	if got := best.Decide(own, []Contender{{"b", own}, {"c", better}, {"d", full}}); got.Contender != 1 {
		t.Errorf("best-metric: %+v", got)
	}
	if got := best.Decide(better, []Contender{{"b", own}}); got.Contender != -1 {
		t.Errorf("best-metric: %+v", got)
	}
	if (Local{}).Decide(own, []Contender{{"b", better}}).Contender != -1 {
		t.Error("local went elsewhere")
	}
}

func TestBytes(t *testing.T) {
	for want, n := range map[string]int64{"0 bytes": 0, "1023 bytes": 1023, "1KiB": 1024, "64MiB": 64 << 20, "10GiB": 10 << 30, "1536KiB": 3 << 19, "2TiB": 2 << 40} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestIDs(t *testing.T) {
	for s, want := range map[string]bool{"0123456789abcdef0123456789abcdef": true, "0123456789ABCDEF0123456789abcdef": false, "": false, "0123456789abcdef0123456789abcde/": false} {
		if ValidID(s) != want {
			t.Errorf("%q", s)
		}
	}
	for s, want := range map[string]bool{"12D3KooWabc": true, "../../etc": false, "": false, "short": false, strings.Repeat("a", 129): false, "12D3KooW\n": false} {
		if ValidPeer(s) != want {
			t.Errorf("%q", s)
		}
	}
}

func TestHashText(t *testing.T) {
	for _, h := range []Hash{{}, {1, 0xff}} {
		b, err := json.Marshal(h)
		var got Hash
		if err != nil || json.Unmarshal(b, &got) != nil || got != h {
			t.Errorf("%s reads as %v, %v", b, got, err)
		}
	}
	var h Hash
	if h.UnmarshalText([]byte("zz")) == nil || h.UnmarshalText([]byte(strings.Repeat("z", 64))) == nil {
		t.Error("text that is no hash")
	}
}

// A refused attempt whose provider delivers after all, and badly, counts when that is found out: no attempt is left.
func TestInvalidResultOfAnEarlierAttemptCounts(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	x := NewTask(Task{ID: "t", Clocks: DefaultClocks, Policy: Policy{MaxAttempts: 1}}, now)
	for _, err := range []error{
		x.Place(now, Attempt{Peer: "12D3KooWa"}, ""),
		x.EndAttempt(now, 1, "12D3KooWa", End{What: "REFUSED", Reason: "QUEUE_FULL"}),
		x.Receive(now, Receipt{Attempt: 1, Peer: "12D3KooWa"}),
		x.Spoil(now, "not what its receipt says"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if x.State != Failed || x.Error == nil || x.Error.Reason != "ATTEMPTS_EXHAUSTED" {
		t.Fatalf("the task is %s, %+v", x.State, x.Error)
	}
}

// A task that was not done where it was handed on is not handed on again: the provider that has it next is not asked to, and is not believed when it does
// so all the same.
func TestATaskIsHandedOnOnce(t *testing.T) {
	submitted := func(peer string, trail ...string) Attempt { return Attempt{Peer: peer, Trail: trail, State: Submitted} }
	ended := func(a Attempt, why string) Attempt { a.Ended = why; return a }
	for name, c := range map[string]struct {
		before []Attempt
		want   bool
	}{
		"the first":                     {nil, true},
		"refused where it came":         {[]Attempt{ended(submitted("a"), "REFUSED")}, true},
		"silent where it was handed on": {[]Attempt{ended(submitted("b", "a"), "LEASE_LOST")}, false},
	} {
		task := &Task{State: Submitted, Policy: Policy{Redirect: true}}
		for _, a := range append(c.before, submitted("c")) {
			a.Number = uint32(len(task.Attempts)) + 1
			task.Attempts = append(task.Attempts, a)
		}
		n := task.Current().Number
		if got := task.MayHandOn(n); got != c.want {
			t.Errorf("%s: it may be handed on: %v", name, got)
		}
		if got := task.MayBeAt(task.Current(), "liar"); got != c.want {
			t.Errorf("%s: it may have been handed on: %v", name, got)
		}
		if err := task.Redirect(time.Now(), n, "c", "liar", nil, ""); (err == nil) != c.want {
			t.Errorf("%s: handing it on: %v", name, err)
		}
		task.Policy.Redirect = false
		if task.MayHandOn(n) {
			t.Errorf("%s: it may be handed on against its user's will", name)
		}
	}
}
