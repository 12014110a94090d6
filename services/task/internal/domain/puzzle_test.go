package domain

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestPaymentsAreOfOneSize(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := Payment{Effort: rapid.SampledFrom([]uint32{0, 1, 2, 16, 1 << 14, MaxEffort}).Draw(t, "effort")}
		copy(p.Nonce[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "nonce"))
		copy(p.Found[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "found"))
		b := p.Bytes()
		if len(b) != PaymentSize {
			t.Fatalf("it has %d bytes", len(b))
		}
		if got, ok := ParsePayment(b); !ok || got != p {
			t.Fatalf("%+v is read as %+v, %v", p, got, ok)
		}
	})
}

func TestWhatIsNoPayment(t *testing.T) {
	t.Parallel()
	if p, ok := ParsePayment(nil); !ok || p != (Payment{}) {
		t.Errorf("nothing is %+v, %v", p, ok)
	}
	for _, b := range [][]byte{{0}, make([]byte, PaymentSize-1), make([]byte, PaymentSize+1), append([]byte{26}, make([]byte, 32)...), bytes.Repeat([]byte{255}, PaymentSize)} {
		if p, ok := ParsePayment(b); ok {
			t.Errorf("%d bytes that begin with %d are %+v", len(b), b[0], p)
		}
	}
}

func TestEfforts(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint32]bool{0: true, 1: true, 2: true, 3: false, 16: true, 48: false, MaxEffort: true, 2 * MaxEffort: false, math.MaxUint32: false} {
		if ValidEffort(n) != want {
			t.Errorf("%d is an effort: %v", n, !want)
		}
	}
	for _, c := range []struct {
		value  uint64
		effort uint32
		want   bool
	}{{math.MaxUint64, 1, true}, {math.MaxUint64, 2, false}, {math.MaxUint64 / 2, 2, true}, {math.MaxUint64/16 + 1, 16, false}, {0, MaxEffort, true}} {
		if Pays(c.value, c.effort) != c.want {
			t.Errorf("%#x pays %d: %v", c.value, c.effort, !c.want)
		}
	}
}

// TestPuzzlesAreApart: no two attempts are the same puzzle, whatever their names are.
func TestPuzzlesAreApart(t *testing.T) {
	t.Parallel()
	a := PuzzleText("provider", "00000000000000000000000000000001", 1)
	for _, b := range [][]byte{PuzzleText("provide", "r0000000000000000000000000000000", 1), PuzzleText("provider", "00000000000000000000000000000001", 2), PuzzleText("provider2", "00000000000000000000000000000001", 1)} {
		if bytes.Equal(a, b) {
			t.Errorf("%q is two puzzles", a)
		}
	}
}
