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
		if l.Charge("p", conduct.Garbage, start) {
			t.Fatalf("cut off after %d", n+1)
		}
	}
	if !l.Charge("p", conduct.Garbage, start) {
		t.Fatal("five at once are forgiven")
	}
	if got := l.Points("p", start); got != 0 {
		t.Errorf("after it was cut off %v points are held against the peer", got)
	}
}

func TestPointsFade(t *testing.T) {
	l := conduct.NewLedger()
	for n := range 100 { // one every 30 s is a nuisance, no attack
		if l.Charge("p", conduct.Garbage, start.Add(time.Duration(n)*30*time.Second)) {
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
		cut = cut || l.Charge("p", conduct.Repeated, start)
	}
	if !cut {
		t.Error("a flood of repeats is forgiven")
	}
	l.Charge("q", conduct.Repeated, start)
	if l.Charge("q", conduct.Repeated, start.Add(2*time.Minute)); l.Points("q", start.Add(2*time.Minute)) != 0 {
		t.Error("the free allowance does not come back")
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
