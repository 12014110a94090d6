package provider

import (
	"fmt"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func waiting(consumer string, n int) *held {
	return &held{key: domain.EntryKey{Consumer: consumer, TaskID: fmt.Sprint(n)}, taskType: "sum"}
}

// A consumer that has filled the queue does not keep another waiting, and each consumer's own tasks keep their order.
func TestConsumersTakeTurns(t *testing.T) {
	s := &Service{perPeer: map[string]int{"much": 100, "little": 2}, turns: newTurns()}
	for n := range 100 {
		s.queue = append(s.queue, waiting("much", n))
	}
	s.queue = append(s.queue, waiting("little", 0), waiting("little", 1))
	var order []string
	for range 6 { // one slot
		h := s.next()
		order = append(order, h.key.Consumer+h.key.TaskID)
		s.running++
		s.leave(h)
	}
	if got := fmt.Sprint(order); got != "[much0 little0 much1 little1 much2 much3]" {
		t.Errorf("they ran as %v", got)
	}
	if len(s.queue) != 96 || s.queue[0].key.TaskID != "4" || s.queue[95].key.TaskID != "99" {
		t.Errorf("%d are left, from %v to %v", len(s.queue), s.queue[0].key, s.queue[len(s.queue)-1].key)
	}
}

// With several slots each consumer has its share of those that run.
func TestConsumersShareSlots(t *testing.T) {
	s := &Service{perPeer: map[string]int{"a": 10, "b": 10}, turns: newTurns()}
	for n := range 10 {
		s.queue = append(s.queue, waiting("a", n))
	}
	for n := range 10 {
		s.queue = append(s.queue, waiting("b", n))
	}
	for range 4 {
		s.next()
	}
	if s.turns.running["a"] != 2 || s.turns.running["b"] != 2 {
		t.Errorf("%v run", s.turns.running)
	}
	s.turns.ended("a")
	if h := s.next(); h.key.Consumer != "a" {
		t.Errorf("a slot that a left goes to %s, which has more", h.key.Consumer)
	}
}

func TestCreditsAreBounded(t *testing.T) {
	c := newCredits(10)
	for n := range 3 * maxCredits {
		c.fault(fmt.Sprint(n), nil)
	}
	if c.of.Len() > maxCredits {
		t.Errorf("%d consumers are remembered", c.of.Len())
	}
	x := c.get("p")
	for range 20 {
		if !x.submissions.Allow() {
			t.Fatal("twice as many as in a second may come at once")
		}
	}
	if x.submissions.Allow() {
		t.Error("and more")
	}
}
