package faults

import (
	"fmt"
	"testing"
	"time"
)

func config(seed uint64) Config {
	return Config{Seed: seed, For: 5 * time.Minute, Every: 3 * time.Second, Lease: 4 * time.Second, Ack: 10 * time.Second, Nodes: []string{"provider-1", "provider-2", "consumer-1"},
		Processes: func(string) []string { return []string{"task", "node", "broker"} }, Filled: "provider-2", Clock: true}
}

func TestASeedIsAPlan(t *testing.T) {
	if a, b := Plan(config(7)), Plan(config(7)); fmt.Sprint(a) != fmt.Sprint(b) {
		t.Fatal("one seed gave two plans")
	}
	if a, b := Plan(config(7)), Plan(config(8)); fmt.Sprint(a) == fmt.Sprint(b) {
		t.Fatal("two seeds gave one plan")
	}
}

func TestEveryKindComesUpAndNoneClash(t *testing.T) {
	for seed := range uint64(50) {
		c := config(seed)
		seen := map[Kind]int{}
		busy := map[string]time.Duration{}
		for _, f := range Plan(c) {
			seen[f.Kind]++
			if f.At >= c.For || f.clashes(busy, c.Nodes) {
				t.Fatalf("seed %d: %v comes at the wrong time", seed, f)
			}
			for _, n := range f.touches(c.Nodes) {
				busy[n] = f.At + f.For
			}
			if f.Kind == Cut && (len(f.Others) == 0 || len(f.Others) == len(c.Nodes)) {
				t.Fatalf("seed %d: %v leaves one side empty", seed, f)
			}
			if f.Kind == Silence && f.For <= c.Lease || f.Kind == Stall && f.For < c.Ack {
				t.Fatalf("seed %d: %v is too short to be noticed", seed, f)
			}
		}
		for _, k := range []Kind{Kill, Silence, Stall, Drop, Cut, Fill, Jump, Blackout} {
			if seen[k] == 0 {
				t.Errorf("seed %d: no %s in five minutes: %v", seed, k, seen)
			}
		}
	}
}
