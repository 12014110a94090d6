package simulation_test

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// dice decide everything that is left to chance. A decision is a hash of the seed and of what it is about (which task, which kind of
// event, which try), and not the next number of a stream: so it does not depend on the order in which goroutines come to ask.
type dice struct {
	seed uint64
	mu   sync.Mutex
	seen map[string]int
}

func newDice(seed uint64) *dice { return &dice{seed: seed, seen: make(map[string]int)} }

// number is a hash of the seed and the key, whose bits are all as good as random.
func (d *dice) number(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h += d.seed * 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

func (d *dice) fraction(key string) float64 { return float64(d.number(key)>>11) / (1 << 53) }

func (d *dice) chance(p float64, key string) bool { return p > 0 && d.fraction(key) < p }

func (d *dice) below(n int, key string) int { return int(d.number(key) % uint64(n)) }

// span is a duration to the nanosecond, so that hardly two things happen at the same time.
func (d *dice) span(from, to time.Duration, key string) time.Duration {
	return from + time.Duration(d.fraction(key)*float64(to-from))
}

func pick[T any](d *dice, key string, of ...T) T { return of[d.below(len(of), key)] }

// nth counts how often it was asked for a key before, and makes the key of this time.
func (d *dice) nth(key string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[key]++
	return fmt.Sprintf("%s#%d", key, d.seen[key])
}

// chances are how hostile the world of one seed is.
type chances struct {
	lose, unacked, repeat, late, overtake float64 // of an event, or of its acknowledgement
	crash                                 float64 // at a commit
	crashes                               int     // at any time, of each node
	sessions                              float64 // that a session is lost after some seconds
	absences                              int     // of each node from the network
	content                               float64 // that a call to the repository fails
	flush                                 float64 // that what nobody waits for outlives a crash
}

func (d *dice) chances() chances {
	if d.chance(0.08, "calm") {
		return chances{}
	}
	return chances{lose: pick(d, "lose", 0, 0.05, 0.2), unacked: pick(d, "unacked", 0, 0.05, 0.2), repeat: pick(d, "repeat", 0, 0.05, 0.25), late: pick(d, "late", 0, 0.03, 0.15),
		overtake: pick(d, "overtake", 0, 0.1, 0.5), crash: pick(d, "crash", 0, 0.005, 0.02, 0.06), crashes: pick(d, "crashes", 0, 0, 1, 2),
		sessions: pick(d, "sessions", 0, 0.3, 0.8), absences: pick(d, "absences", 0, 0, 1, 2), content: pick(d, "content", 0, 0.05, 0.3), flush: 0.5}
}

// tally counts what happened, over all seeds.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (t *tally) add(what string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[what] += n
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for i, what := range []string{"seeds", "tasks", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "for want of a provider", "crashes", "at a commit", "sessions lost", "absences", "events", "lost", "unacknowledged",
		"repeated", "late", "overtaking", "redirects", "refusals", "leases lost", "cancels", "submitted again", "runs", "extra runs", "rejected", "pins left", "copies", "reports of replicas", "from a replica"} {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", what, t.n[what])
	}
	return b.String()
}
