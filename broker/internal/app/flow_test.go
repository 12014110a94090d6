package app

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/padding"
)

// timed is a stream that notes when it is written to.
type timed struct {
	Stream
	mu    sync.Mutex
	begun time.Time
	at    []time.Duration
	size  int
}

func (s *timed) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, time.Since(s.begun))
	s.size += len(b)
	return len(b), nil
}

func (s *timed) SetWriteDeadline(time.Time) error { return nil }

// Acknowledgements wait for an event that goes the same way, where both can go at once.
func TestAcknowledgementsWaitForAnEvent(t *testing.T) {
	const hold = 20 * time.Millisecond
	full, little := circuitBurst-circuitHeaders, padding.Cell-circuitHeaders
	for name, c := range map[string]struct {
		events map[time.Duration]int // written at a time, with so many bytes
		want   time.Duration
	}{
		"nothing comes":                      {nil, hold},
		"one comes":                          {map[time.Duration]int{5 * time.Millisecond: little}, 5 * time.Millisecond},
		"one that does not go at once":       {map[time.Duration]int{5 * time.Millisecond: 4 * full}, 5 * time.Millisecond},
		"one that leaves no room":            {map[time.Duration]int{5 * time.Millisecond: full}, 5*time.Millisecond + deferredHolds*hold},
		"and another":                        {map[time.Duration]int{5 * time.Millisecond: full, 50 * time.Millisecond: little}, 50 * time.Millisecond},
		"and others without end":             {map[time.Duration]int{5 * time.Millisecond: full, 50 * time.Millisecond: full, 80 * time.Millisecond: full}, 5*time.Millisecond + deferredHolds*hold},
		"one that went before it was needed": {map[time.Duration]int{0: little}, hold},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &timed{begun: time.Now()}
				a := newAckWriter(s, time.Second, hold, true)
				var done sync.WaitGroup
				done.Go(a.run)
				if n, ok := c.events[0]; ok {
					a.hurry(n)
				}
				a.push(event.ID{1}, event.Outcome{})
				synctest.Wait()
				for at, n := range c.events {
					if at > 0 {
						time.AfterFunc(at, func() { a.hurry(n) })
					}
				}
				<-time.After(time.Second)
				a.finish()
				done.Wait()
				if !slices.Equal(s.at, []time.Duration{c.want}) || s.size != padding.Cell-circuitHeaders {
					t.Errorf("%d bytes written after %v, want a cell's after %v", s.size, s.at, c.want)
				}
			})
		})
	}
}
