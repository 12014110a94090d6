package conduct_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/conduct"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestGarbageCutsOff(t *testing.T) {
	l := conduct.NewLedger()
	for n := range 4 {
		if l.Charge("p", conduct.Garbage, start) > 0 {
			t.Fatalf("cut off after %d", n+1)
		}
	}
	if l.Charge("p", conduct.Garbage, start) != conduct.CutOff {
		t.Fatal("five at once are forgiven")
	}
	if got := l.Points("p", start); got != 0 {
		t.Errorf("after it was cut off %v points are held against the peer", got)
	}
}

func TestPointsFade(t *testing.T) {
	l := conduct.NewLedger()
	for n := range 100 { // one every 30 s is a nuisance, no attack
		if l.Charge("p", conduct.Garbage, start.Add(time.Duration(n)*30*time.Second)) > 0 {
			t.Fatalf("cut off after %d", n+1)
		}
	}
}

func TestRepeatsAreFreeUpToARate(t *testing.T) {
	l := conduct.NewLedger()
	for range int(conduct.Repeated.Free) {
		l.Charge("p", conduct.Repeated, start)
	}
	if got := l.Points("p", start); got != 0 {
		t.Fatalf("%v points for what is free", got)
	}
	cut := false
	for range 2000 {
		cut = cut || l.Charge("p", conduct.Repeated, start) > 0
	}
	if !cut {
		t.Error("a flood of repeats is forgiven")
	}
	l.Charge("q", conduct.Repeated, start)
	if l.Charge("q", conduct.Repeated, start.Add(2*time.Minute)); l.Points("q", start.Add(2*time.Minute)) != 0 {
		t.Error("the free allowance does not come back")
	}
}

// Who comes back and goes on is kept out for longer each time, and a time is forgiven after an hour.
func TestEachCutOffIsLongerThanTheLast(t *testing.T) {
	l := conduct.NewLedger()
	now := start
	for _, want := range []time.Duration{2, 4, 8, 16, 32, 64, 64} {
		if got := l.Charge("p", conduct.Graylisted, now); got != want*time.Minute {
			t.Fatalf("cut off for %v, want %v", got, want*time.Minute)
		}
		now = now.Add(time.Second)
	}
	now = now.Add(4 * conduct.Forgive) // seven times less four
	if got := l.Charge("p", conduct.Graylisted, now); got != 16*time.Minute {
		t.Errorf("after four clean hours it is cut off for %v", got)
	}
	now = now.Add(100 * conduct.Forgive)
	if got := l.Charge("p", conduct.Graylisted, now); got != conduct.CutOff {
		t.Errorf("after a clean week it is cut off for %v", got)
	}
}

// A bad link that stalls now and then costs its peer streams alone; one that does nothing else is cut off.
func TestStalls(t *testing.T) {
	l := conduct.NewLedger()
	for n := range 100 {
		if l.Charge("bad link", conduct.Stalled, start.Add(time.Duration(n)*time.Minute)) > 0 {
			t.Fatalf("a stall a minute: cut off after %d", n+1)
		}
	}
	for n := range 4 {
		if cut := l.Charge("stalls", conduct.Stalled, start.Add(time.Duration(n)*30*time.Second)) > 0; cut != (n == 3) {
			t.Errorf("stall %d on end: cut off %v", n+1, cut)
		}
	}
}

func TestLedgerIsBounded(t *testing.T) {
	l := conduct.NewLedger()
	for n := range 20000 {
		l.Charge(fmt.Sprint(n), conduct.Malformed, start)
	}
	held := 0
	for n := range 20000 {
		if l.Points(fmt.Sprint(n), start) > 0 {
			held++
		}
	}
	if held > 4096 {
		t.Errorf("%d accounts are kept", held)
	}
}
