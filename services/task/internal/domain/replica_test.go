package domain

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Whatever those that are asked say, and in whatever order: never more keep a result than are wanted, nobody is asked twice, and in the end either
// enough keep it or nobody is left to ask.
func TestAskReplicas(t *testing.T) {
	t.Parallel()
	const patience = time.Minute
	for copies := uint32(1); copies <= 3; copies++ {
		for named := range 5 {
			for say := range 81 { // of each of four: kept, refused or silent
				e := &Entry{Sub: Submission{Copies: copies}}
				for i := range named {
					e.Replicas = append(e.Replicas, Replica{Peer: fmt.Sprint("peer", i)})
				}
				now, asked := time.Unix(1_700_000_000, 0), []string{}
				answers, rounds := say, 0
				for done := false; !done; rounds++ {
					if rounds > 2*named+2 {
						t.Fatalf("%d copies, %d named, answers %d: no end", copies, named, say)
					}
					var ask []string
					var next time.Time
					ask, next, done = e.AskReplicas(now, patience)
					asked = append(asked, ask...)
					if done != next.IsZero() {
						t.Fatalf("done is %v, and the next time %v", done, next)
					}
					open := 0
					for i := range e.Replicas {
						if s := e.Replicas[i].State; s == ReplicaAsked || s == ReplicaKept {
							open++
						}
					}
					if open > int(copies) {
						t.Fatalf("%d may keep it, and %d are wanted", open, copies)
					}
					for _, p := range ask {
						switch answers % 3 {
						case 0:
							e.Replica(p).State = ReplicaKept
						case 1:
							e.Replica(p).State = ReplicaRefused
						}
						answers /= 3
					}
					now = now.Add(patience)
				}
				kept := 0
				for _, r := range e.Replicas {
					if r.State == ReplicaKept {
						kept++
					}
				}
				slices.Sort(asked)
				if len(slices.Compact(asked)) != len(asked) || kept < int(copies) && len(asked) != named {
					t.Fatalf("%d copies, %d named, answers %d: asked %v, and %d keep it", copies, named, say, asked, kept)
				}
			}
		}
	}
}

func TestHoldersAreThoseThatMayHaveIt(t *testing.T) {
	t.Parallel()
	a := &Attempt{Replicas: []Replica{{Peer: "named"}, {Peer: "kept", State: ReplicaKept}, {Peer: "refused", State: ReplicaRefused}, {Peer: "silent", State: ReplicaSilent}}}
	for reported, want := range map[bool]string{false: "[kept named silent]", true: "[kept silent]"} {
		a.Reported = reported
		var got []string
		for _, r := range a.Holders() {
			got = append(got, r.Peer)
		}
		if fmt.Sprint(got) != want || a.HandedOver() == reported {
			t.Errorf("reported %v: %v, want %s; handed over: %v", reported, got, want, a.HandedOver())
		}
	}
}

func TestReplicasOfATask(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	task := NewTask(Task{ID: "id", Policy: Policy{MaxAttempts: 3, Replicas: 2}}, now)
	if err := task.Place(now, Attempt{Peer: "runner", Replicas: []Replica{{Peer: "a"}, {Peer: "b"}}}, ""); err != nil {
		t.Fatal(err)
	}
	before := task.Clone()
	said := []Replica{{Peer: "a", State: ReplicaRefused, Reason: "PEER_QUOTA"}, {Peer: "b", State: ReplicaKept}, {Peer: "stranger", State: ReplicaKept}}
	if err := task.Replicas(now, 1, "a", said); err == nil {
		t.Error("somebody else says who keeps it")
	}
	if err := task.Replicas(now, 1, "runner", said); err != nil {
		t.Fatal(err)
	}
	if got := task.Attempts[0]; got.Replica("a").Reason != "PEER_QUOTA" || got.Replica("b").State != ReplicaKept || got.Replica("stranger") != nil || !got.Reported {
		t.Errorf("the attempt is %+v", got)
	}
	if b := before.Attempts[0]; b.Reported || b.Replica("b").State != ReplicaNamed {
		t.Errorf("a clone has changed with it: %+v", b)
	}
	if last := task.History[len(task.History)-1]; last.What != "REPLICAS" || last.Detail != "1 other providers keep the result, of 1 that were wanted; one refused: PEER_QUOTA" {
		t.Errorf("the history ends with %+v", last)
	}
	if err := task.KeptBy(now, 1, "stranger"); err == nil {
		t.Error("a stranger keeps it")
	}
	if err := task.KeptBy(now, 2, "a"); err == nil {
		t.Error("there is no such attempt")
	}
}
