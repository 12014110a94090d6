package external

import (
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
)

// FuzzAnswers reads what an executor sends as a description and as the end of a run: whatever passes is within bounds.
func FuzzAnswers(f *testing.F) {
	for _, m := range []proto.Message{
		&executorv1.DescribeResponse{Type: "odd", Version: "1", Attributes: map[string]string{"k": "v"}, Memory: 1 << 20, Concurrency: 3},
		&executorv1.Finish{ExitCode: 3, Reason: "NO_TEXT", Message: "blank", PeakMemory: 1 << 63},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d executorv1.DescribeResponse
		if proto.Unmarshal(b, &d) == nil {
			d.Type = "odd"
			if a, err := read(&d, "odd"); err == nil {
				c := a.capability
				if a.width < 1 || a.width > maxWidth || len(c.Attributes) > maxAttributes+2 || !printable(c.Version) || len(c.Version) > maxVersion || c.MinMemory < 0 {
					t.Errorf("%+v passed", c)
				}
				for k, v := range c.Attributes {
					if k == "" || len(k) > maxKey || len(v) > maxValue || !utf8.ValidString(k+v) {
						t.Errorf("the attribute %q=%q passed", k, v)
					}
				}
			}
		}
		var end executorv1.Finish
		if proto.Unmarshal(b, &end) == nil {
			if out, err := outcome(&end); err == nil && (out.CPU < 0 || out.CPU > 366*24*time.Hour || out.PeakMemory < 0 || len(out.Reason) > 64) {
				t.Errorf("%+v passed", out)
			}
		}
	})
}

func TestChangesAreAnnouncedSlowerAndSlower(t *testing.T) {
	e, err := New(Config{Address: Address{Type: "odd", Endpoint: "unix:/nowhere"}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	changes := 0
	e.OnChange(func() { changes++ })
	w := &watch{e: e}
	next := byte('a')
	other := func() *about {
		next++
		a, err := read(&executorv1.DescribeResponse{Type: "odd", Version: string(next)}, "odd")
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	w.here(other())
	if changes != 1 {
		t.Fatal("its coming is not announced")
	}
	gap := w.gap
	for range 5 { // each too early at first, and taken when the gap is over
		w.here(other())
		if w.told = w.told.Add(-w.gap); w.gap < gap {
			t.Errorf("the gap shrank to %v", w.gap)
		}
		gap = w.gap
		w.here(other())
	}
	if changes != 6 || gap < 16*time.Second {
		t.Errorf("%d changes announced, the gap is %v", changes, gap)
	}
	w.told = w.told.Add(-2 * calm)
	if w.here(other()); changes != 7 || w.gap != time.Second {
		t.Errorf("after a calm time: %d changes, gap %v", changes, w.gap)
	}
	w.away(errAway)
	if changes != 8 {
		t.Error("that it goes is not announced at once")
	}
}
