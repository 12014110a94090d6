package hostile

import (
	"bufio"
	"context"
	"io"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// Strangers are identities without end, of which each submits some tasks, pays nothing and goes.
type Strangers struct {
	// Came counts identities, Sent their submissions, Priced those that were refused with a price.
	Came, Sent, Priced atomic.Int64

	mu     sync.Mutex
	effort uint32
}

// Effort is the price that they were told last.
func (s *Strangers) Effort() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.effort
}

// eachSends is how many submissions one identity sends: more than it would be let get away with cost nothing but the next identity.
const eachSends = 64

// Flood goes on until ctx ends, with so many identities at once.
func (s *Strangers) Flood(ctx context.Context, victim string, atOnce int) {
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := s.visit(ctx, victim); err != nil {
					pause(ctx, again)
				}
			}
		})
	}
	all.Wait()
}

func (s *Strangers) visit(ctx context.Context, victim string) error {
	p, err := New(ctx, victim, false)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	s.Came.Add(1)
	p.hearPrices(func(price *eventv1.Puzzle) {
		s.Priced.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.effort = price.GetEffort()
	})
	stream, err := p.stream(ctx, eventProtocol)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for range eachSends {
			if _, _, err := readFrame(stream); err != nil {
				return
			}
		}
	}()
	for range eachSends {
		if _, err := stream.Write(eventFrame(p.submission())); err != nil {
			return err
		}
		s.Sent.Add(1)
	}
	select {
	case <-answered:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// hearPrices acknowledges what comes, and tells of each refusal for the price.
func (p *Peer) hearPrices(told func(*eventv1.Puzzle)) {
	p.host.SetStreamHandler(eventProtocol, func(s network.Stream) {
		defer func() { _ = s.Reset() }()
		r := bufio.NewReader(s)
		for {
			kind, body, err := readFrame(r)
			if err != nil {
				return
			}
			var e eventv1.Event
			if kind != 1 || proto.Unmarshal(body, &e) != nil {
				continue
			}
			if _, err := s.Write(frame(2, append(rawID(e.GetId()), 0))); err != nil {
				return
			}
			var no eventv1.TaskRefused
			if e.GetType() == eventv1.EventType_EVENT_TYPE_TASK_REFUSED && proto.Unmarshal(e.GetPayload(), &no) == nil && no.GetPuzzle() != nil {
				told(no.GetPuzzle())
			}
		}
	})
}

// Cheat asks for the price and says that it has paid, again and again: now and then that is true by chance. It returns when it has been cut off, or an error of ctx.
func (p *Peer) Cheat(ctx context.Context) error {
	var price atomic.Pointer[eventv1.Puzzle]
	told := make(chan struct{}, 1)
	p.hearPrices(func(is *eventv1.Puzzle) {
		price.Store(is)
		select {
		case told <- struct{}{}:
		default:
		}
	})
	s, err := p.stream(ctx, eventProtocol)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	go func() { _, _ = io.Copy(io.Discard, s) }()
	for price.Load() == nil { // in a flood a price is told only so often: whoever is not told asks again
		if _, err := s.Write(eventFrame(p.submission())); err != nil {
			return err
		}
		wait := time.NewTimer(again)
		select {
		case <-told:
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		}
		wait.Stop()
	}
	for ctx.Err() == nil && p.Cut.Load() == 0 {
		e := p.submission()
		var m eventv1.TaskSubmission
		if err := proto.Unmarshal(e.GetPayload(), &m); err != nil {
			return err
		}
		m.Puzzle = append(append([]byte{byte(bits.Len32(price.Load().GetEffort()))}, price.Load().GetNonce()...), make([]byte, 16)...)
		e.Payload = encode(&m)
		sign(e, p.key, p.ID)
		if _, err := s.Write(eventFrame(e)); err != nil {
			break
		}
		p.Sent.Add(1)
		pause(ctx, again)
	}
	return ctx.Err()
}
