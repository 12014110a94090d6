package domain_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

func TestCoarse(t *testing.T) {
	m := metric("12D3KooWGood", 7)
	m.CPU = domain.CPU{Model: "Example CPU @ 3.0 GHz", Cores: 6, Threads: 12, MHz: 3392.1, Load: 0.37, Load1: 2.9}
	m.Memory = domain.Space{Total: 16_630_000_000, Free: 9_000_000_000, Used: 7_000_000_000}
	m.Disk = domain.Space{Total: 500_000_000_000, Free: 100_000_000_000, Used: 400_000_000_000}
	m.GPUs = []domain.GPU{{Model: "Small", Memory: 11 << 30}, {Model: "Large", Memory: 24 << 30}, {Model: "Third", Memory: 1}}
	m.Queue = domain.Queue{Pending: 9, Running: 5, Slots: 12, Capacity: 1000}
	want := m
	want.CPU = domain.CPU{Cores: 4, Threads: 8, MHz: 4096, Load: 0.25, Load1: 4}
	want.Memory = domain.Space{Total: 16 << 30, Free: 8 << 30, Used: 4 << 30}
	want.Disk = domain.Space{Total: 1 << 38, Free: 1 << 36, Used: 1 << 38}
	want.GPUs = []domain.GPU{{Memory: 32 << 30}, {Memory: 8 << 30}}
	want.Queue = domain.Queue{Pending: 16, Running: 8, Slots: 8, Capacity: 512}
	if got := m.Coarse(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if m.GPUs[0].Model != "Small" {
		t.Error("the measurement was changed")
	}
	if got := (domain.Metric{PeerID: "a", Version: 1, Interval: 1}).Coarse(); len(got.GPUs) != 0 || got.CPU != (domain.CPU{}) || got.Queue != (domain.Queue{}) {
		t.Errorf("of nothing it made %+v", got)
	}
}

// TestCoarseFitsAll: whatever was measured, its classes pass the check of peers, and are their own classes; and there are few of them.
func TestCoarseFitsAll(t *testing.T) {
	figures := map[domain.CPU]bool{}
	for range 20_000 {
		m := metric("12D3KooWGood", 1)
		m.CPU.Cores, m.CPU.Threads, m.CPU.MHz, m.CPU.Load, m.CPU.Load1 = rand.Uint32()>>rand.IntN(33), rand.Uint32()>>rand.IntN(33), math.Exp(30*rand.Float64()), rand.Float64(), math.Exp(40*rand.Float64()-5)
		space := func() domain.Space {
			return domain.Space{Total: rand.Uint64() >> rand.IntN(65), Free: rand.Uint64() >> rand.IntN(65), Used: rand.Uint64() >> rand.IntN(65)}
		}
		m.Memory, m.Disk = space(), space()
		m.GPUs = make([]domain.GPU, rand.IntN(70))
		m = m.Sound()
		m.Queue = domain.Queue{Pending: rand.Uint32N(1 << 24), Running: rand.Uint32N(1<<24) >> rand.IntN(25), Slots: rand.Uint32N(1<<24) >> rand.IntN(25), Capacity: rand.Uint32N(1 << 24)}
		got := m.Coarse()
		if err := got.Check(); err != nil {
			t.Fatalf("%+v became %+v: %v", m, got, err)
		}
		if again := got.Coarse(); !reflect.DeepEqual(got, again) {
			t.Fatalf("%+v became %+v and then %+v", m, got, again)
		}
		if m.Queue.Running >= m.Queue.Slots && m.Queue.Slots > 0 && got.Queue.Running < got.Queue.Slots {
			t.Fatalf("a full provider looks free: %+v became %+v", m.Queue, got.Queue)
		}
		if (m.Queue.Running == 0) != (got.Queue.Running == 0) {
			t.Fatalf("%+v became %+v", m.Queue, got.Queue)
		}
		figures[domain.CPU{MHz: got.CPU.MHz, Load: got.CPU.Load}] = true
	}
	if len(figures) > 100 {
		t.Errorf("%d classes of frequency and load", len(figures))
	}
}
