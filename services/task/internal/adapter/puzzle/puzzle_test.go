package puzzle_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/adapter/puzzle"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

var text = domain.PuzzleText("12D3KooWprovider", "0123456789abcdef0123456789abcdef", 1)

// TestWorkIsTheContracts: another version of this program has to find the same.
func TestWorkIsTheContracts(t *testing.T) {
	t.Parallel()
	got := puzzle.Work(text, domain.Nonce{1, 2, 3}, [16]byte{4, 5, 6})
	if want := uint64(0x9471c14aae224a5f); got != want {
		t.Errorf("it is %#x, want %#x", got, want)
	}
}

// TestEverythingCounts: a solution for one provider, task, attempt or nonce is none for another.
func TestEverythingCounts(t *testing.T) {
	t.Parallel()
	seen := map[uint64]string{}
	for name, value := range map[string]uint64{
		"itself":           puzzle.Work(text, domain.Nonce{}, [16]byte{}),
		"another provider": puzzle.Work(domain.PuzzleText("12D3KooWproviders", "0123456789abcdef0123456789abcdef", 1), domain.Nonce{}, [16]byte{}),
		"another task":     puzzle.Work(domain.PuzzleText("12D3KooWprovider", "0123456789abcdef0123456789abcdee", 1), domain.Nonce{}, [16]byte{}),
		"another attempt":  puzzle.Work(domain.PuzzleText("12D3KooWprovider", "0123456789abcdef0123456789abcdef", 2), domain.Nonce{}, [16]byte{}),
		"another nonce":    puzzle.Work(text, domain.Nonce{1}, [16]byte{}),
		"another find":     puzzle.Work(text, domain.Nonce{}, [16]byte{1}),
	} {
		if other, same := seen[value]; same {
			t.Errorf("%s is the same as %s", name, other)
		}
		seen[value] = name
	}
}

// TestEffortIsTheMean: of many evaluations about one in as many as the effort is a solution.
func TestEffortIsTheMean(t *testing.T) {
	t.Parallel()
	const effort, tries = 8, 2000
	found := 0
	for i := range tries {
		var pick [16]byte
		binary.BigEndian.PutUint64(pick[:], uint64(i))
		if domain.Pays(puzzle.Work(text, domain.Nonce{}, pick), effort) {
			found++
		}
	}
	if found < tries/effort/2 || found > 2*tries/effort { // 250; a chance in more than 10^20 to be so far off
		t.Errorf("of %d evaluations %d are solutions", tries, found)
	}
}

// BenchmarkCheck is what a submission costs a provider before anything else is done with it.
func BenchmarkCheck(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		puzzle.Work(text, domain.Nonce{}, [16]byte{})
	}
}

// BenchmarkSolve is what it costs a consumer, by effort.
func BenchmarkSolve(b *testing.B) {
	for _, effort := range []uint32{16, 256} {
		b.Run(fmt.Sprint(effort), func(b *testing.B) {
			var pick [16]byte
			n := uint64(0)
			for b.Loop() {
				for {
					n++
					binary.BigEndian.PutUint64(pick[:], n)
					if domain.Pays(puzzle.Work(text, domain.Nonce{}, pick), effort) {
						break
					}
				}
			}
		})
	}
}
