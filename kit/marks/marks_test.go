package marks_test

import (
	"fmt"
	"testing"

	"github.com/shallot-net/shallot/kit/marks"
)

func TestSet(t *testing.T) {
	s := marks.NewSet("question", []uint32{marks.Of("question", "a", 1), marks.Of("question", "b", 7)})
	for _, c := range []struct {
		peer    string
		version uint64
		want    bool
	}{{"a", 1, true}, {"b", 7, true}, {"a", 2, false}, {"b", 6, false}, {"c", 1, false}, {"", 0, false}} {
		if got := s.Has(c.peer, c.version); got != c.want {
			t.Errorf("Has(%q, %d) = %v", c.peer, c.version, got)
		}
	}
	if marks.NewSet("another", []uint32{marks.Of("question", "a", 1)}).Has("a", 1) {
		t.Error("a mark of one question counts in another")
	}
	if (marks.Set{}).Has("a", 1) {
		t.Error("the zero Set has something")
	}
}

// Whoever asks with more marks than are allowed costs the answerer no more for it.
func TestSetIsBounded(t *testing.T) {
	var all []uint32
	for i := range 10 * marks.Most {
		all = append(all, marks.Of("q", fmt.Sprint(i), 1))
	}
	s, has := marks.NewSet("q", all), 0
	for i := range all {
		if s.Has(fmt.Sprint(i), 1) {
			has++
		}
	}
	if has != marks.Most {
		t.Errorf("%d of %d marks count, want %d", has, len(all), marks.Most)
	}
}
