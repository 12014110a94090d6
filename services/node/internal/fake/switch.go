package fake

import (
	"context"
	"sync"

	"github.com/shallot-net/shallot/kit/fault"
)

var errDown = fault.Unavailable("FAKE_DOWN", "the service was stopped")

// Switch is what kill and restart are to those who call a service: streams break, calls fail until Start.
type Switch struct {
	mu   sync.Mutex
	down bool
	life chan struct{}
}

// Stop breaks every stream.
func (s *Switch) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return
	}
	s.down = true
	close(s.lifeLocked())
}

// Start serves again.
func (s *Switch) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		s.down, s.life = false, nil
	}
}

func (s *Switch) lifeLocked() chan struct{} {
	if s.life == nil {
		s.life = make(chan struct{})
	}
	return s.life
}

// alive returns a channel that closes with the next Stop, or an error while the service is stopped.
func (s *Switch) alive() (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errDown
	}
	return s.lifeLocked(), nil
}

// during is ctx that also ends with the next Stop.
func (s *Switch) during(ctx context.Context) (context.Context, context.CancelFunc, error) {
	life, err := s.alive()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-life:
			cancel(errDown)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }, nil
}
