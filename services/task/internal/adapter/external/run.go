package external

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// Why a run's call was ended from here.
var (
	errTime    = errors.New("the time limit is over")
	errStalled = errors.New("the executor does not take the parts")
	errSettled = errors.New("the run is over")
)

// maxHandover bounds how long handing over the parts may take in all.
const maxHandover = 9 * time.Minute

// settle is how long an executor may take to end the call after its Finish.
const settle = time.Second

// Validate implements app.Executor.
func (e *Executor) Validate(ctx context.Context, options []byte, parts []app.Part) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Validate)
	defer cancel()
	_, err := e.client.Validate(ctx, &executorv1.ValidateRequest{Options: options, Parts: partsOf(parts)})
	if err != nil && fault.From(err).Code == codes.Unimplemented {
		return nil
	}
	return err
}

// Execute implements app.Executor.
func (e *Executor) Execute(ctx context.Context, in app.Run, sink app.Sink) (app.Outcome, error) {
	if in.Limits.Time <= 0 || in.Limits.Memory <= 0 || in.Limits.Output <= 0 {
		return app.Outcome{}, fmt.Errorf("a run must have limits on time, memory and output, not %+v", in.Limits)
	}
	if len(in.Options) > maxOptions || len(in.Parts) > maxParts {
		return app.Outcome{Reason: app.ReasonPayloadInvalid, Message: fmt.Sprintf("the payload has %d bytes of options and %d parts: it may have %d and %d",
			len(in.Options), len(in.Parts), maxOptions, maxParts)}, nil
	}
	out, err := e.execute(ctx, in, sink)
	if ctx.Err() != nil {
		return app.Outcome{Reason: app.ReasonCancelled, Message: "the task was cancelled"}, nil
	}
	if err != nil {
		e.log.Warn("a run failed at its executor", logging.KeyError, clip(err.Error(), maxShown))
	}
	return out, err
}

func (e *Executor) execute(ctx context.Context, in app.Run, sink app.Sink) (app.Outcome, error) {
	if err := e.await(ctx); err != nil {
		return app.Outcome{}, err
	}
	defer e.busy()()
	if err := e.Validate(ctx, in.Options, in.Parts); err != nil {
		return refused(err)
	}
	wait := in.Limits.Time + 2*e.cfg.Grace
	if streamed(in.Parts) {
		wait += maxHandover
	}
	// The executor sees this deadline; the clocks below are exact.
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	call, stop := context.WithCancelCause(ctx)
	defer stop(errSettled)
	r := &run{e: e, in: in, sink: sink, stop: stop}
	defer r.disarm()
	finish, err := r.talk(call)
	if err == nil {
		return outcome(finish)
	}
	switch cause := context.Cause(call); {
	case r.over != nil:
		return *r.over, nil
	case errors.Is(cause, errTime), errors.Is(cause, context.DeadlineExceeded):
		return app.Outcome{Reason: app.ReasonTimeLimit, Message: fmt.Sprintf("the executor did not end within the time limit of %v", in.Limits.Time)}, nil
	case cause != nil && !errors.Is(cause, errSettled):
		return app.Outcome{}, cause
	}
	return refused(err)
}

// refused is the outcome for a payload that the executor says is bad; any other error is the executor's.
func refused(err error) (app.Outcome, error) {
	if f := fault.From(err); f.Code == codes.InvalidArgument {
		return app.Outcome{Reason: app.ReasonPayloadInvalid, Message: f.Message}, nil
	}
	return app.Outcome{}, err
}

// run is one call of Execute.
type run struct {
	e       *Executor
	in      app.Run
	sink    app.Sink
	stop    context.CancelCauseFunc
	stream  grpc.BidiStreamingClient[executorv1.ExecuteRequest, executorv1.ExecuteResponse]
	started bool
	output  int64
	over    *app.Outcome // set when a limit ended it

	mu    sync.Mutex
	timer *time.Timer
}

// arm ends the call for the given reason in a while, in place of what was armed before.
func (r *run) arm(d time.Duration, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
	r.timer = time.AfterFunc(d, func() { r.stop(why) })
}

func (r *run) disarm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
}

// talk hands over the run and takes what comes, until the Finish.
func (r *run) talk(ctx context.Context) (*executorv1.Finish, error) {
	var err error
	if r.stream, err = r.e.client.Execute(ctx); err != nil {
		return nil, err
	}
	start := &executorv1.Start{TaskId: r.in.TaskID, Attempt: r.in.Attempt, Options: r.in.Options, Parts: partsOf(r.in.Parts),
		Limits: &executorv1.Limits{Time: durationpb.New(r.in.Limits.Time), Memory: uint64(r.in.Limits.Memory), Output: uint64(r.in.Limits.Output)}} //nolint:gosec // checked by Execute
	r.arm(r.e.cfg.Stall, errStalled)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if err := r.send(ctx, start); err != nil && !errors.Is(err, io.EOF) { // of EOF the answers say more
			r.stop(err)
			return
		}
		r.arm(r.in.Limits.Time+r.e.cfg.Grace, errTime)
	}()
	finish, err := r.receive()
	if err != nil {
		r.stop(errSettled) // the sender may wait for room
		<-sent
		return nil, err
	}
	return finish, r.end(sent)
}

// receive takes answers up to the Finish.
func (r *run) receive() (*executorv1.Finish, error) {
	for {
		m, err := r.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the executor ended the call without a Finish")
		}
		if err != nil {
			return nil, err
		}
		switch m := m.GetResponse().(type) {
		case *executorv1.ExecuteResponse_Started:
			r.begin()
		case *executorv1.ExecuteResponse_Output:
			r.begin()
			if err := r.take(m.Output); err != nil {
				return nil, err
			}
		case *executorv1.ExecuteResponse_Progress:
			r.progress(m.Progress)
		case *executorv1.ExecuteResponse_Finish:
			r.begin()
			return m.Finish, nil
		} // anything else is of a later version of the contract
	}
}

// end waits for the end of a call whose Finish is there. How it ends does not matter any more; that something follows does.
func (r *run) end(sent <-chan struct{}) error {
	r.stopSending(sent)
	if _, err := r.stream.Recv(); err == nil {
		return errors.New("the executor went on after its Finish")
	}
	return nil
}

// stopSending: an executor may finish before it has taken all parts.
func (r *run) stopSending(sent <-chan struct{}) {
	select {
	case <-sent:
		r.arm(settle, errSettled)
	default:
		r.stop(errSettled)
		<-sent
	}
}

func (r *run) begin() {
	if !r.started {
		r.started = true
		r.sink.Started()
	}
}

// take passes output on up to its limit.
func (r *run) take(o *executorv1.Output) error {
	data, left := o.GetData(), r.in.Limits.Output-r.output
	over := int64(len(data)) > left
	if over {
		data = data[:left]
	}
	r.output += int64(len(data))
	if err := r.sink.Output(o.GetName(), data); err != nil {
		return fmt.Errorf("cannot take what the executor gives as %s: %w", shown(o.GetName()), err)
	}
	if over {
		r.over = &app.Outcome{Reason: app.ReasonOutputLimit, Message: fmt.Sprintf("the program gave more than its limit of %d bytes of output", r.in.Limits.Output)}
		return errSettled
	}
	return nil
}

// maxText bounds the words of a progress, in bytes.
const maxText = 200

func (r *run) progress(p *executorv1.Progress) {
	s, ok := r.sink.(app.ProgressSink)
	if !ok {
		return
	}
	fraction := p.GetFraction()
	if math.IsNaN(fraction) {
		fraction = 0
	}
	text := p.GetText()
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	text = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text)
	s.Progress(min(max(fraction, 0), 1), strings.TrimSpace(text))
}

var reasonShape = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// Bounds of what an executor says that a run took.
const maxCPU = 365 * 24 * time.Hour

// outcome checks how an executor says that a run ended.
func outcome(f *executorv1.Finish) (app.Outcome, error) {
	if f.GetReason() != "" && !reasonShape.MatchString(f.GetReason()) {
		return app.Outcome{}, fmt.Errorf("the executor gives %s as its reason, which is not UPPER_SNAKE of at most 64 bytes", shown(f.GetReason()))
	}
	out := app.Outcome{ExitCode: f.GetExitCode(), Reason: f.GetReason(), Message: f.GetMessage(), PeakMemory: int64(min(f.GetPeakMemory(), maxNeed))} //nolint:gosec // bounded
	if f.GetCpu().CheckValid() == nil {
		out.CPU = min(max(f.GetCpu().AsDuration(), 0), maxCPU)
	}
	return out, nil
}
