package bounded_test

import (
	"testing"

	"github.com/shallot-net/shallot/kit/bounded"
)

func TestMap(t *testing.T) {
	m := bounded.New[string, int](2)
	if _, ok := m.Get("a"); ok || m.Len() != 0 {
		t.Error("it is not empty")
	}
	if v := m.GetOrMake("a", func() int { return 1 }); v != 1 {
		t.Errorf("made %d", v)
	}
	if v := m.GetOrMake("a", func() int { t.Error("made again"); return 2 }); v != 1 {
		t.Errorf("got %d", v)
	}
	m.Put("b", 2)
	m.Put("a", 3) // takes nobody's place
	if v, ok := m.Get("b"); !ok || v != 2 || m.Len() != 2 {
		t.Errorf("b is %d, %v, of %d", v, ok, m.Len())
	}
	if v, ok := m.Get("a"); !ok || v != 3 {
		t.Errorf("a is %d, %v", v, ok)
	}
	m.Delete("a")
	m.Delete("nobody")
	if _, ok := m.Get("a"); ok || m.Len() != 1 {
		t.Errorf("%d are left", m.Len())
	}
}

func TestMapIsBounded(t *testing.T) {
	const most = 16
	forgotten := make(map[int]bool) // of the first ones, over many maps: no place is a safe one, and none the first to go
	for range 200 {
		m := bounded.New[int, int](most)
		for i := range most {
			m.Put(i, i)
		}
		for i := range most / 2 {
			if m.GetOrMake(most+i, func() int { return most + i }); m.Len() != most {
				t.Fatalf("%d entries, %d at most", m.Len(), most)
			}
			if v, ok := m.Get(most + i); !ok || v != most+i {
				t.Fatalf("who came last is not there: %d, %v", v, ok)
			}
		}
		for i := range most {
			if _, ok := m.Get(i); !ok {
				forgotten[i] = true
			}
		}
	}
	if len(forgotten) != most {
		t.Errorf("only %v are ever forgotten", forgotten)
	}
	m := bounded.New[int, int](0)
	m.Put(1, 1)
	if m.Put(2, 2); m.Len() != 1 {
		t.Errorf("%d entries", m.Len())
	}
}
