package padding

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func TestClassesAreThoseOfThePaper(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, want int64 }{
		{0, 0}, {1, 1}, {2, 2}, {3, 3}, {8, 8}, {9, 10}, {10, 10}, {15, 16}, {16, 16}, {17, 18}, {100, 104}, {255, 256}, {256, 256}, {257, 272},
		{1000, 1024}, {1024, 1024}, {1025, 1088}, {1088, 1088}, {1089, 1152}, {1 << 20, 1 << 20}, {1<<20 + 1, 1<<20 + 1<<15}, {1<<40 + 1, 1<<40 + 1<<34}, {Limit, Limit},
	} {
		if got := padme(c.n); got != c.want {
			t.Errorf("%d bytes become %d, want %d", c.n, got, c.want)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	check := func(n int64) {
		got := Size(n)
		switch {
		case got < n, Size(got) != got:
			t.Fatalf("the class of %d is %d, whose own is %d", n, got, Size(got))
		case n < coarse && (got%Floor != 0 || got == 0 || got-n >= Floor && n > 0):
			t.Fatalf("%d bytes become %d, want the next multiple of %d", n, got, Floor)
		case n >= coarse && float64(got-n) > 0.12*float64(n):
			t.Fatalf("%d bytes become %d, which is %.1f %% more", n, got, 100*float64(got-n)/float64(n))
		case !Fits(n, got-n):
			t.Fatalf("%d bytes may not have the padding of their class, %d", n, got-n)
		}
	}
	for n := range int64(1 << 17) {
		check(n)
	}
	for range 100_000 {
		n := rand.Int64N(Limit) >> rand.IntN(60)
		check(n)
	}
}

// TestFewClasses counts them: 8 up to 4 KiB, 16 for each power of two up to 64 KiB, 32 up to 4 GiB, then 64.
func TestFewClasses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		upTo int64
		want int
	}{{64 << 10, 8 + 4*16}, {4 << 30, 8 + 4*16 + 16*32}, {1 << 40, 8 + 4*16 + 16*32 + 8*64}} {
		classes := 0
		for n := int64(0); n <= c.upTo; n = Size(n) + 1 {
			classes++
		}
		if classes != c.want {
			t.Errorf("%d classes up to %d, want %d", classes, c.upTo, c.want)
		}
	}
}

func TestPaddingThatDoesNotFit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ n, pad int64 }{{-1, 0}, {0, -1}, {0, most + 1}, {1 << 20, 1<<17 + 2}, {Limit + 1, 0}, {1, 1 << 40}} {
		if Fits(c.n, c.pad) {
			t.Errorf("%d bytes may have %d more", c.n, c.pad)
		}
	}
	for _, n := range []int64{-1, Limit + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%d bytes have a class", n)
				}
			}()
			Size(n)
		}()
	}
}

func TestLiesAreFoundOut(t *testing.T) {
	t.Parallel()
	good := make([]byte, 10_000)
	if err := Read(bytes.NewReader(good), int64(len(good))); err != nil {
		t.Fatal(err)
	}
	if err := Read(bytes.NewReader(good), int64(len(good))+1); !errors.Is(err, ErrInvalid) {
		t.Errorf("cut off: %v", err)
	}
	for _, at := range []int{0, 4096, 9999} {
		bad := bytes.Clone(good)
		bad[at] = 1
		if err := Read(bytes.NewReader(bad), int64(len(bad))); !errors.Is(err, ErrInvalid) {
			t.Errorf("byte %d is 1: %v", at, err)
		}
	}
	if err := Read(iotest.ErrReader(io.ErrClosedPipe), 1); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a reader that fails: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("a body"), uint32(0))
	f.Add([]byte{}, uint32(70_000))
	f.Fuzz(func(t *testing.T, body []byte, more uint32) {
		body = append(body, make([]byte, more%(1<<20))...)
		n := int64(len(body))
		pad := Size(n) - n
		var out bytes.Buffer
		out.Write(body)
		if err := Write(&out, pad); err != nil || int64(out.Len()) != Size(n) {
			t.Fatalf("%d bytes became %d: %v", n, out.Len(), err)
		}
		got := make([]byte, n)
		if _, err := io.ReadFull(&out, got); err != nil || !bytes.Equal(got, body) {
			t.Fatal("the body is another")
		}
		if err := Read(&out, pad); err != nil || out.Len() != 0 {
			t.Fatalf("%v, %d bytes are left", err, out.Len())
		}
		if pad > 0 && Write(broken{}, pad) == nil {
			t.Fatal("a writer's error is lost")
		}
	})
}

func TestMessagesFillCells(t *testing.T) {
	t.Parallel()
	const headers = 30
	last := int64(0)
	for n := int64(1); n < 3*coarse; n++ {
		c := Cells(n, headers)
		if c < n || c < last || c != Cells(c, headers) || c > n+max(Cell, n/8) {
			t.Fatalf("%d bytes: %d, after %d; again %d", n, c, last, Cells(c, headers))
		}
		if (c+headers)%Cell != 0 && c != Size(n) {
			t.Fatalf("%d bytes: %d are neither whole cells nor of a class", n, c)
		}
		last = c
	}
	if got := Cells(10, headers); got != Cell-headers {
		t.Errorf("the least is %d", got)
	}
}
