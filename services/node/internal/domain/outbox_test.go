package domain

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Unix(1_700_000_000, 0)

func msg(id uint64, peer, task string) Message {
	return Message{ID: id, EventID: fmt.Sprint("e", id), Lane: Lane{Peer: peer}, TaskID: task, Size: 100}
}

func drain(o *Outbox, now time.Time) []uint64 {
	var ids []uint64
	for {
		m, ok := o.Next(now)
		if !ok {
			return ids
		}
		ids = append(ids, m.ID)
	}
}

func wantIDs(t *testing.T, got []uint64, want ...uint64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestOutboxKeepsTheOrderOfATask(t *testing.T) {
	o := NewOutbox(OutboxLimits{})
	o.Tell(msg(1, "p", "a"), t0)
	o.Tell(msg(2, "p", "a"), t0)
	o.Tell(msg(3, "p", "b"), t0)
	o.Tell(msg(4, "p", ""), t0)
	o.Tell(msg(5, "p", "a"), t0)
	wantIDs(t, drain(o, t0), 1, 3, 4)
	o.Sent(1, "e1")
	wantIDs(t, drain(o, t0), 2)
	if up, told := o.Failed(2, "e2", Unknown, t0); up || told {
		t.Fatal("it was given up")
	}
	wantIDs(t, drain(o, t0)) // its lane waits, also for the answers to what is in flight
	o.Sent(3, "e3")
	o.Failed(4, "e4", Refused, t0)
	o.Wake(t0.Add(time.Second))
	wantIDs(t, drain(o, t0.Add(time.Second)), 2)
	o.Sent(2, "e2")
	wantIDs(t, drain(o, t0.Add(time.Second)), 5)
}

func TestOutboxTakesTurns(t *testing.T) {
	o := NewOutbox(OutboxLimits{InFlight: 6})
	for i := range uint64(20) {
		o.Tell(msg(i+1, "first", fmt.Sprint("t", i)), t0)
	}
	o.Tell(msg(101, "second", "x"), t0)
	o.Tell(msg(102, "second", "y"), t0)
	got := drain(o, t0)
	if len(got) != 6 || !slices.Contains(got, 101) || !slices.Contains(got, 102) {
		t.Fatalf("in flight are %v", got)
	}
}

func TestOutboxSlowStartAndBackOff(t *testing.T) {
	half := func() float64 { return 0.5 } // no jitter
	o := NewOutbox(OutboxLimits{Draw: half, Retry: Backoff{First: time.Second, Max: 8 * time.Second}})
	for i := range uint64(100) {
		o.Tell(msg(i+1, "p", ""), t0)
	}
	first := drain(o, t0)
	if len(first) != firstWindow {
		t.Fatalf("%d in flight at once", len(first))
	}
	for _, id := range first { // they fail together, and that counts once
		o.Failed(id, fmt.Sprint("e", id), Unreached, t0)
	}
	wantIDs(t, drain(o, t0))
	if at := o.Wake(t0); !at.Equal(t0.Add(time.Second)) {
		t.Fatalf("it wakes at %v", at.Sub(t0))
	}
	o.Wake(t0.Add(time.Second))
	wantIDs(t, drain(o, t0.Add(time.Second)), 1) // one try at a time now, the oldest first
	o.Failed(1, "e1", Unreached, t0.Add(time.Second))
	if at := o.Wake(t0.Add(time.Second)); !at.Equal(t0.Add(3 * time.Second)) {
		t.Fatalf("it wakes at %v", at.Sub(t0))
	}
	o.Reachable("p")
	wantIDs(t, drain(o, t0.Add(time.Second)), 1)
	o.Sent(1, "e1")
	wantIDs(t, drain(o, t0.Add(time.Second)), 2, 3)
}

func TestOutboxGivesUp(t *testing.T) {
	o := NewOutbox(OutboxLimits{})
	timed := msg(1, "p", "a")
	timed.Timeout = time.Second
	o.Tell(timed, t0)
	o.Tell(msg(2, "p", "b"), t0)
	o.Tell(msg(3, "p", "c"), t0)
	wantIDs(t, drain(o, t0), 1, 2, 3)
	if up, told := o.Failed(2, "e2", Refused, t0); !up || !told {
		t.Error("a refused message is tried again")
	}
	o.Withdraw(3)
	if up, told := o.Failed(3, "e3", Unknown, t0); !up || told {
		t.Error("a withdrawn message is told of, or tried again")
	}
	if up, _ := o.Failed(1, "e1", Unknown, t0.Add(500*time.Millisecond)); up {
		t.Error("it is given up before its time")
	}
	late := o.Expire(t0.Add(time.Second))
	if len(late) != 1 || late[0].ID != 1 || !late[0].Uncertain {
		t.Errorf("expired are %+v", late)
	}
	if n, bytes, flying, _ := o.Held(); n != 0 || bytes != 0 || flying != 0 {
		t.Errorf("held are %d, %d bytes, %d in flight", n, bytes, flying)
	}
	// Its time ends while it is under way: the answer decides.
	o.Reachable("p")
	o.Tell(timed, t0)
	wantIDs(t, drain(o, t0), 1)
	if late := o.Expire(t0.Add(2 * time.Second)); len(late) != 0 {
		t.Error("it expired while it was under way")
	}
	if up, told := o.Failed(1, "e1", Unknown, t0.Add(2*time.Second)); !up || !told {
		t.Error("it is tried again after its time")
	}
}

func TestOutboxIsToldAgain(t *testing.T) {
	o := NewOutbox(OutboxLimits{})
	o.Begin()
	for i := range uint64(4) {
		o.Tell(msg(i+1, "p", ""), t0)
	}
	o.Synced()
	wantIDs(t, drain(o, t0), 1, 2, 3, 4)
	o.Sent(1, "e1")
	o.Begin()
	o.Tell(msg(2, "p", ""), t0) // still wanted, and in flight: not sent twice
	o.Tell(msg(3, "p", ""), t0)
	changed := msg(4, "p", "")
	changed.EventID = "another"
	o.Tell(changed, t0)
	o.Synced()
	wantIDs(t, drain(o, t0), 4)
	o.Sent(4, "e4") // the answer to the old one means nothing
	if n, _, _, _ := o.Held(); n != 3 {
		t.Fatalf("held are %d", n)
	}
	o.Begin()
	o.Synced() // nothing is wanted any more
	for id, ev := range map[uint64]string{2: "e2", 3: "e3", 4: "another"} {
		if up, told := o.Failed(id, ev, Unknown, t0); !up || told {
			t.Errorf("%d is tried again", id)
		}
	}
}

func TestOutboxMemory(t *testing.T) {
	o := NewOutbox(OutboxLimits{Bytes: 100 * (100 + overhead), LaneBytes: 60 * (100 + overhead)})
	o.Begin()
	id := uint64(0)
	tell := func(peer string, n int) {
		for range n {
			id++
			o.Tell(msg(id, peer, fmt.Sprint(id)), t0)
		}
	}
	tell("hog", 80)
	if n, _, _, _ := o.Held(); n != 60 {
		t.Fatalf("%d of one peer are held", n)
	}
	tell("other", 50) // the fullest lane gives way, down to what is fair
	hog, other := o.lanes[Lane{Peer: "hog"}], o.lanes[Lane{Peer: "other"}]
	if hog.held+other.held != 100 || other.held != 50 {
		t.Fatalf("hog has %d, other %d", hog.held, other.held)
	}
	if o.NeedsResync() {
		t.Error("it wants to be told again while there is no room")
	}
	for {
		ids := drain(o, t0)
		if len(ids) == 0 {
			break
		}
		for _, id := range ids {
			o.Sent(id, fmt.Sprint("e", id))
		}
	}
	if !o.NeedsResync() {
		t.Error("what was let go is never told again")
	}
	o.Begin()
	if o.NeedsResync() {
		t.Error("it wants yet another session")
	}
}

// TestOutboxProperties drives an outbox against a model: whatever happens, the order of a task holds, nothing is sent
// twice at once, nothing is lost, and the books are right.
func TestOutboxProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := OutboxLimits{InFlight: rapid.IntRange(1, 20).Draw(t, "in flight"), Window: rapid.IntRange(1, 16).Draw(t, "window")}
		if rapid.Bool().Draw(t, "tight") {
			limits.Bytes, limits.LaneBytes = 20*(100+overhead), 10*(100+overhead)
		}
		o := NewOutbox(limits)
		o.Begin()
		now := t0
		wanted := map[uint64]Message{} // what the task service has in its outbox
		flying := map[uint64]Message{}
		sent := map[string]uint64{} // lane and task, to the highest id sent
		next := uint64(0)
		land := func(t *rapid.T) uint64 {
			if len(flying) == 0 {
				t.Skip("nothing in flight")
			}
			var ids []uint64
			for id := range flying {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			id := rapid.SampledFrom(ids).Draw(t, "id")
			return id
		}
		pump := func(t *rapid.T) {
			for {
				m, ok := o.Next(now)
				if !ok {
					break
				}
				if _, twice := flying[m.ID]; twice {
					t.Fatalf("%d is in flight twice", m.ID)
				}
				for _, f := range flying {
					if m.TaskID != "" && f.TaskID == m.TaskID && f.Lane == m.Lane {
						t.Fatalf("%d and %d of one task are in flight at once", f.ID, m.ID)
					}
				}
				if key := m.Lane.Peer + m.TaskID; m.TaskID != "" && m.ID < sent[key] {
					t.Fatalf("%d is sent after %d", m.ID, sent[key])
				}
				flying[m.ID] = m
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"tell": func(t *rapid.T) {
				next++
				m := msg(next, rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "peer"), rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "task"))
				if rapid.Bool().Draw(t, "timed") {
					m.Timeout = time.Duration(rapid.IntRange(1, 5000).Draw(t, "timeout")) * time.Millisecond
				}
				wanted[next] = m
				o.Tell(m, now)
				pump(t)
			},
			"withdraw": func(t *rapid.T) {
				if next == 0 {
					t.Skip()
				}
				id := rapid.Uint64Range(1, next).Draw(t, "id")
				o.Withdraw(id)
				delete(wanted, id)
				pump(t)
			},
			"sent": func(t *rapid.T) {
				id := land(t)
				m := flying[id]
				delete(flying, id)
				delete(wanted, id)
				if m.TaskID != "" {
					sent[m.Lane.Peer+m.TaskID] = id
				}
				o.Sent(id, m.EventID)
				pump(t)
			},
			"failed": func(t *rapid.T) {
				id := land(t)
				m := flying[id]
				delete(flying, id)
				up, told := o.Failed(id, m.EventID, Failure(rapid.IntRange(0, 2).Draw(t, "how")), now)
				if _, still := wanted[id]; told && !still {
					t.Fatalf("somebody is told of %d, which nobody waits for", id)
				}
				if up {
					delete(wanted, id)
				}
				pump(t)
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
				for _, m := range o.Expire(now) {
					delete(wanted, m.ID)
				}
				o.Wake(now)
				pump(t)
			},
			"session": func(t *rapid.T) {
				o.Begin()
				var ids []uint64
				for id := range wanted {
					ids = append(ids, id)
				}
				slices.Sort(ids)
				for _, id := range ids {
					o.Tell(wanted[id], now)
				}
				o.Synced()
				pump(t)
			},
			"": func(t *rapid.T) {
				n, bytes, inFlight, _ := o.Held()
				if inFlight != len(flying) && inFlight > len(flying) {
					t.Fatalf("%d in flight, and the outbox says %d", len(flying), inFlight)
				}
				if inFlight > limits.InFlight || limits.Bytes > 0 && bytes > limits.Bytes {
					t.Fatalf("%d in flight and %d bytes are too many", inFlight, bytes)
				}
				if n == 0 && (bytes != 0 || inFlight != 0) {
					t.Fatalf("an empty outbox has %d bytes and %d in flight", bytes, inFlight)
				}
			},
		})
		// In the end everything wanted gets through, whatever was let go: as often as it takes, in new sessions.
		for range 1000 {
			now = now.Add(time.Minute)
			for _, m := range o.Expire(now) {
				delete(wanted, m.ID)
			}
			o.Wake(now)
			pump(t)
			for id, m := range flying {
				delete(flying, id)
				delete(wanted, id)
				o.Sent(id, m.EventID)
			}
			if n, _, _, _ := o.Held(); n == 0 {
				if len(wanted) == 0 {
					return
				}
				if !o.NeedsResync() {
					t.Fatalf("%d messages are lost", len(wanted))
				}
				o.Begin()
				var ids []uint64
				for id := range wanted {
					ids = append(ids, id)
				}
				slices.Sort(ids)
				for _, id := range ids {
					o.Tell(wanted[id], now)
				}
				o.Synced()
			}
		}
		t.Fatalf("%d messages never get through", len(wanted))
	})
}
