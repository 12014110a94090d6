package mux_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/rpc/mux"
)

type frame struct {
	seq  uint64
	text string
}

func setSeq(f *frame, n uint64) { f.seq = n }
func getSeq(f *frame) uint64    { return f.seq }

// pipe is a stream in memory: both ends fail once it is broken, and Send blocks while its buffer is full.
type pipe struct {
	ctx      context.Context
	brk      context.CancelCauseFunc
	up, down chan *frame
	half     chan struct{} // closed when the caller has closed its side
}

func newPipe(ctx context.Context, buffer int) *pipe {
	ctx, brk := context.WithCancelCause(ctx)
	return &pipe{ctx: ctx, brk: brk, up: make(chan *frame, buffer), down: make(chan *frame, buffer), half: make(chan struct{})}
}

func put(p *pipe, ch chan *frame, f *frame) error {
	c := *f // as marshalling would
	select {
	case ch <- &c:
		return nil
	case <-p.ctx.Done():
		return io.EOF
	}
}

func (p *pipe) get(ch chan *frame) (*frame, error) {
	select {
	case f := <-ch:
		return f, nil
	case <-p.ctx.Done():
		return nil, context.Cause(p.ctx)
	case <-p.half:
		return nil, io.EOF
	}
}

type callerEnd struct{ *pipe }

func (e callerEnd) Send(f *frame) error   { return put(e.pipe, e.up, f) }
func (e callerEnd) Recv() (*frame, error) { return e.get(e.down) }

type serverEnd struct{ *pipe }

func (e serverEnd) Send(f *frame) error      { return put(e.pipe, e.down, f) }
func (e serverEnd) Recv() (*frame, error)    { return e.get(e.up) }
func (e serverEnd) Context() context.Context { return e.ctx }

type (
	stream  = mux.Stream[*frame, *frame]
	options = mux.Options[*frame, *frame]
)

// serving opens pipes and serves each with handle.
type serving struct {
	mu     sync.Mutex
	pipes  []*pipe
	ended  chan error
	handle func(ctx context.Context, f *frame) *frame
	opts   options
	buffer int
}

func (s *serving) open(ctx context.Context) (stream, error) {
	p := newPipe(ctx, s.buffer)
	s.mu.Lock()
	s.pipes = append(s.pipes, p)
	s.mu.Unlock()
	go func() {
		err := mux.Serve(serverEnd{p}, getSeq, setSeq, s.handle, s.opts)
		p.brk(io.EOF)
		if s.ended != nil {
			s.ended <- err
		}
	}()
	return callerEnd{p}, nil
}

func (s *serving) last() *pipe {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pipes[len(s.pipes)-1]
}

func echo(_ context.Context, f *frame) *frame { return &frame{text: "re " + f.text} }

func wantReason(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	f := fault.From(err)
	if f == nil || f.Code != code || f.Reason != reason {
		t.Fatalf("got %v (%+v), want %v %s", err, f, code, reason)
	}
}

func TestCallsGetTheirOwnAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &serving{handle: func(ctx context.Context, f *frame) *frame {
			time.Sleep(time.Duration(len(f.text)*7%5) * time.Millisecond) //nolint:forbidigo // virtual time: answers overtake each other
			return echo(ctx, f)
		}}
		c := mux.NewCaller(s.open, setSeq, getSeq, nil)
		defer c.Close()
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() {
				text := fmt.Sprint(i)
				got, err := c.Call(t.Context(), &frame{text: text})
				if err != nil || got.text != "re "+text {
					t.Errorf("call %d: %v, %v", i, got, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestBrokenStreamFailsWhatWasSentAndKeepsWhatWasNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		s := &serving{handle: func(ctx context.Context, f *frame) *frame {
			if !broken.Load() {
				<-ctx.Done() // the stream breaks while this runs
			}
			return echo(ctx, f)
		}, opts: options{MaxInFlight: 1}}
		var states []bool
		c := mux.NewCaller(s.open, setSeq, getSeq, nil, mux.WithOnState(func(up bool, err error) {
			if states = append(states, up); !up && err == nil {
				t.Error("broken without an error")
			}
		}))
		defer c.Close()
		errs := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := c.Call(t.Context(), &frame{text: "x"})
				errs <- err
			}()
		}
		synctest.Wait() // the first is being handled; unbuffered, the second is stuck in Send or the queue
		broken.Store(true)
		s.last().brk(errors.New("reset"))
		wantReason(t, <-errs, codes.Unavailable, mux.ReasonBroken)
		<-errs // sent or not: it may have either outcome, but it has one
		got, err := c.Call(t.Context(), &frame{text: "again"})
		if err != nil || got.text != "re again" {
			t.Fatalf("after reopening: %v, %v", got, err)
		}
		if len(states) < 3 || !states[0] || states[1] || !states[2] {
			t.Errorf("states %v", states)
		}
	})
}

func TestCallWaitsForAStreamUntilItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := mux.NewCaller(func(context.Context) (stream, error) {
			tries++
			return nil, fault.Unavailable("NO_SUCH_SOCKET", "nobody listens")
		}, setSeq, getSeq, nil, mux.WithQueue(1))
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for range 3 { // more than the queue takes
			_, err := c.Call(ctx, &frame{})
			wantReason(t, err, codes.DeadlineExceeded, mux.ReasonNotSent)
		}
		if tries < 8 || tries > 40 {
			t.Errorf("tried %d times in 10 s: the back-off is off", tries)
		}
	})
}

func TestCancelledCallIsNotSentAndALateAnswerIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled atomic.Int32
		release := make(chan struct{})
		s := &serving{handle: func(ctx context.Context, f *frame) *frame {
			handled.Add(1)
			if f.text == "slow" {
				<-release
			}
			return echo(ctx, f)
		}, opts: options{MaxInFlight: 1}}
		c := mux.NewCaller(s.open, setSeq, getSeq, nil)
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 10)
		call := func(text string) {
			_, err := c.Call(ctx, &frame{text: text})
			errs <- err
		}
		go call("slow")
		synctest.Wait()
		for range 5 {
			go call("queued")
		}
		synctest.Wait()
		cancel()
		for range 6 {
			if f := fault.From(<-errs); f.Code != codes.Canceled {
				t.Errorf("got %v", f)
			}
		}
		close(release)
		synctest.Wait()
		if n := handled.Load(); n > 3 {
			t.Errorf("%d handled: cancelled calls were sent", n)
		}
		if got, err := c.Call(t.Context(), &frame{text: "next"}); err != nil || got.text != "re next" {
			t.Errorf("next: %v, %v", got, err)
		}
	})
}

func TestMaxInFlightHoldsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, peak atomic.Int32
		s := &serving{buffer: 4, opts: options{MaxInFlight: 8}, handle: func(ctx context.Context, f *frame) *frame {
			peak.Store(max(peak.Load(), now.Add(1)))
			time.Sleep(time.Millisecond) //nolint:forbidigo // virtual time: the work that a call takes
			now.Add(-1)
			return echo(ctx, f)
		}}
		c := mux.NewCaller(s.open, setSeq, getSeq, nil)
		defer c.Close()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if _, err := c.Call(t.Context(), &frame{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if peak.Load() != 8 {
			t.Errorf("%d at once, want 8", peak.Load())
		}
	})
}

func TestPushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t.Context(), 0)
		srv := mux.NewServer(serverEnd{p}, getSeq, setSeq, echo, options{})
		done := make(chan error, 1)
		go func() { done <- srv.Run() }()
		var got []string
		c := mux.NewCaller(func(context.Context) (stream, error) { return callerEnd{p}, nil }, setSeq, getSeq,
			func(f *frame) { got = append(got, f.text) })
		for i := range 10 {
			if err := srv.Push(t.Context(), &frame{seq: 9, text: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Call(t.Context(), &frame{}); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != "[0 1 2 3 4 5 6 7 8 9]" {
			t.Errorf("pushes %v", got)
		}
		p.brk(errors.New("reset"))
		if err := <-done; err == nil {
			t.Error("a broken stream ended without an error")
		}
		wantReason(t, srv.Push(t.Context(), &frame{}), codes.Unavailable, mux.ReasonBroken)
		c.Close()
	})
}

func TestFullStreamLetsPushAndShutdownGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t.Context(), 0) // nobody reads the answers
		srv := mux.NewServer(serverEnd{p}, getSeq, setSeq, echo, options{Grace: 100 * time.Millisecond})
		done := make(chan error, 1)
		go func() { done <- srv.Run() }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		for range 1000 {
			if err = srv.Push(ctx, &frame{}); err != nil {
				break
			}
		}
		wantReason(t, err, codes.DeadlineExceeded, fault.ReasonDeadline)
		p.brk(rpc.ErrDraining)
		wantReason(t, <-done, codes.Unavailable, fault.ReasonShuttingDown)
	})
}

func TestPanicOfAHandler(t *testing.T) {
	for name, failed := range map[string]func(*frame, error) *frame{
		"answered": func(f *frame, err error) *frame { return &frame{text: "failed " + f.text} },
		"ends":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &serving{ended: make(chan error, 9), opts: options{Failed: failed}, handle: func(context.Context, *frame) *frame { panic("boom") }}
				c := mux.NewCaller(s.open, setSeq, getSeq, nil)
				got, err := c.Call(t.Context(), &frame{text: "x"})
				if failed != nil {
					if err != nil || got.text != "failed x" {
						t.Fatalf("%v, %v", got, err)
					}
				} else {
					wantReason(t, err, codes.Unavailable, mux.ReasonBroken)
					if err := <-s.ended; err == nil {
						t.Error("no error")
					}
				}
				c.Close()
			})
		})
	}
}

func TestCallerThatClosesItsSideGetsAllAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t.Context(), 0)
		release := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- mux.Serve(serverEnd{p}, getSeq, setSeq, func(ctx context.Context, f *frame) *frame { <-release; return echo(ctx, f) }, options{})
		}()
		for i := range 5 {
			p.up <- &frame{seq: uint64(i + 1)}
		}
		close(p.half)
		synctest.Wait()
		close(release)
		for range 5 {
			<-p.down
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestCloseFailsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &serving{handle: func(ctx context.Context, f *frame) *frame { <-ctx.Done(); return f }}
		c := mux.NewCaller(s.open, setSeq, getSeq, nil)
		errs := make(chan error)
		go func() { _, err := c.Call(t.Context(), &frame{}); errs <- err }()
		synctest.Wait()
		c.Close()
		wantReason(t, <-errs, codes.Canceled, mux.ReasonClosed)
		_, err := c.Call(t.Context(), &frame{})
		wantReason(t, err, codes.Canceled, mux.ReasonClosed)
	})
}
