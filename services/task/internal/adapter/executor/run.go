package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// run is one run in one child, which it may end by killing it.
type run struct {
	w     *Wasm
	p     *process
	run   app.Run
	key   moduleKey
	sink  app.Sink
	stage stage
	// compiled is called when the module is there, at the latest at the run's end.
	compiled func()

	started  bool
	output   int64
	artefact *artefact
	// over is how the run ended: by itself (the value is notStopped), or why we killed the child. The first counts, so
	// that a limit which comes late does not hit the child's next run.
	over atomic.Pointer[ending]
}

// ending is an outcome, or what went wrong on this side.
type ending struct {
	out app.Outcome
	err error
}

var notStopped = &ending{}

// end kills the child for the given reason, unless the run is over.
func (r *run) end(reason, format string, args ...any) {
	r.stop(&ending{out: app.Outcome{Reason: reason, Message: fmt.Sprintf(format, args...)}})
}

// fail kills the child for what is the provider's fault, unless the run is over.
func (r *run) fail(err error) { r.stop(&ending{err: err}) }

func (r *run) stop(e *ending) {
	if r.over.CompareAndSwap(nil, e) {
		r.p.kill()
	}
}

// do blocks until the run has ended. reuse tells whether the child may take another.
func (r *run) do(ctx context.Context) (out app.Outcome, reuse bool, err error) {
	start, drop, err := r.prepare()
	if err != nil {
		return app.Outcome{}, false, errors.Join(err, r.stage.clear())
	}
	defer func() {
		if r.artefact != nil {
			r.artefact.discard()
		}
	}()
	defer context.AfterFunc(ctx, func() { r.end(app.ReasonCancelled, "the task was cancelled") })()
	r.p.watch.begin(r)
	finish, err := r.talk(start, drop)
	r.p.watch.end()
	if !r.over.CompareAndSwap(nil, notStopped) {
		out, err := r.killed()
		return out, false, err
	}
	if err != nil {
		out, err := r.failed(err)
		return out, false, err
	}
	r.p.runs++
	r.p.cpu += finish.GetCpu().AsDuration()
	if err := r.stage.clear(); err != nil {
		return app.Outcome{}, false, fmt.Errorf("cannot clear up after the run: %w", err)
	}
	return app.Outcome{
		ExitCode: finish.GetExitCode(), Reason: finish.GetReason(), Message: finish.GetMessage(),
		CPU: finish.GetCpu().AsDuration(), PeakMemory: int64(finish.GetPeakMemory()), //nolint:gosec // at most 4 GiB
	}, finish.GetReason() != app.ReasonCompile, nil
}

// prepare stages the parts and says what the child needs to know.
func (r *run) prepare() (*executorv1.Start, [][]byte, error) {
	start := &executorv1.Start{
		TaskId: r.run.TaskID, Attempt: r.run.Attempt, Options: r.run.Options,
		Limits: &executorv1.Limits{Time: durationpb.New(r.run.Limits.Time), Memory: uint64(r.run.Limits.Memory), Output: uint64(r.run.Limits.Output)}, //nolint:gosec // checked by Execute
	}
	var drop [][]byte
	for _, part := range r.run.Parts {
		if part.Name == wire.PartModule {
			var err error
			if drop, err = r.module(start, part); err != nil {
				return nil, nil, err
			}
			continue
		}
		as := part.Name
		if name, ok := strings.CutPrefix(part.Name, wire.PrefixInput); ok {
			as = wire.DirIn + "/" + name
		}
		p, err := r.stage.add(part, as)
		if err != nil {
			return nil, nil, err
		}
		start.Parts = append(start.Parts, p)
	}
	return start, drop, nil
}

// module gives the child what it needs: nothing when it has the module, else the compiled one where there is one.
func (r *run) module(start *executorv1.Start, part app.Part) (drop [][]byte, err error) {
	if r.p.resident.has(r.key) {
		r.p.resident.use(r.key, 0)
		start.Parts = append(start.Parts, &executorv1.Part{Name: part.Name, Sha256: r.key[:]})
		return nil, nil
	}
	p, err := r.stage.add(part, wire.PartModule)
	if err != nil {
		return nil, err
	}
	p.Sha256 = r.key[:]
	start.Parts = append(start.Parts, p)
	size, err := r.w.cache.stage(r.key, r.stage.path(wire.PartArtefact), r.p.confined())
	switch {
	case err == nil:
		r.stage.files = true
		start.Parts = append(start.Parts, &executorv1.Part{Name: wire.PartArtefact, Source: &executorv1.Part_Path{Path: wire.DirRun + "/" + wire.PartArtefact}})
	case errors.Is(err, errCorrupt):
		r.w.cfg.Log.Warn("a compiled module on disk was changed: it is compiled anew", logging.Err(err))
		fallthrough
	default:
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		size = artefactFactor * part.Size
		if !r.p.ran && part.Size >= worthCaching {
			start.Parts = append(start.Parts, &executorv1.Part{Name: wire.PartArtefact})
			r.artefact = r.w.cache.create(r.key)
		}
	}
	for _, old := range r.p.resident.use(r.key, size) {
		drop = append(drop, old[:])
	}
	return drop, nil
}

const (
	// artefactFactor is about how many bytes of machine code a byte of module gives.
	artefactFactor = 4
	// worthCaching: a smaller module compiles in a few milliseconds, in whichever child there is.
	worthCaching = 32 << 10
)

// talk takes what the child sends until its Finish. It ends with the child too.
func (r *run) talk(start *executorv1.Start, drop [][]byte) (*executorv1.Finish, error) {
	r.p.number++
	// When Send meets the end of the call, Recv tells why it ended.
	if err := r.p.stream.Send(&executorv1.ServeRequest{Number: r.p.number, Start: start, Drop: drop}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for {
		msg, err := r.p.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the executor process ended the call without a result")
		}
		if err != nil {
			return nil, err
		}
		if err := r.hear(msg); err != nil || msg.GetFinish() != nil {
			return msg.GetFinish(), err
		}
	}
}

// hear takes one message. What is in it, and when it comes, is not to be trusted: the child may be the program's.
func (r *run) hear(msg *executorv1.ServeResponse) error {
	switch {
	case msg.GetNumber() != r.p.number:
		return fmt.Errorf("%w: an answer to request %d, not to %d", errProtocol, msg.GetNumber(), r.p.number)
	case msg.GetStarted() != nil && r.started:
		return fmt.Errorf("%w: the program has started twice", errProtocol)
	case msg.GetStarted() == nil && len(msg.GetOutputs()) == 0 && msg.GetFinish() == nil:
		return fmt.Errorf("%w: a message with nothing in it", errProtocol)
	case msg.GetFinish() != nil && msg.GetFinish().GetReason() == "" && msg.GetStarted() == nil && !r.started:
		return fmt.Errorf("%w: the program has ended and never started", errProtocol)
	}
	if s := msg.GetStarted(); s != nil {
		r.begin(max(0, s.GetAgo().AsDuration()))
	}
	for _, o := range msg.GetOutputs() {
		if err := r.take(o); err != nil {
			return err
		}
	}
	return nil
}

var errProtocol = errors.New("the executor process does not keep to the protocol")

// begin: the module is compiled, and the program runs since a while ago.
func (r *run) begin(ago time.Duration) {
	r.started, r.p.ran = true, true
	r.p.watch.started(ago, r.run.Limits.Time)
	if a := r.artefact; a != nil {
		r.artefact = nil
		if err := a.commit(); err != nil {
			r.w.cfg.Log.Warn("a compiled module could not be kept: it will be compiled again", logging.Err(err))
		}
	}
	r.compiled()
	r.sink.Started()
}

// take passes output on up to its limit.
func (r *run) take(o *executorv1.Output) error {
	data := o.GetData()
	if !r.started {
		if o.GetName() != wire.PartArtefact || r.artefact == nil {
			return fmt.Errorf("%w: output %q before the program has started", errProtocol, o.GetName())
		}
		r.artefact.write(data)
		return nil
	}
	if name := o.GetName(); name != wire.OutputStdout && name != wire.OutputStderr && !strings.HasPrefix(name, wire.PrefixOutput) {
		return fmt.Errorf("%w: output %q of a program", errProtocol, name)
	}
	left := r.run.Limits.Output - r.output
	over := int64(len(data)) > left
	if over {
		data = data[:left]
	}
	r.output += int64(len(data))
	if len(data) > 0 || !over {
		if err := r.sink.Output(o.GetName(), data); err != nil {
			r.p.kill()
			return fmt.Errorf("cannot take the program's output: %w", err)
		}
	}
	if over {
		r.end(app.ReasonOutputLimit, "the program gave more than its limit of %d bytes of output", r.run.Limits.Output)
	}
	return nil
}

// killed is the outcome of a run that we ended.
func (r *run) killed() (app.Outcome, error) {
	<-r.p.dead
	e := r.over.Load()
	if e.err != nil {
		return app.Outcome{}, e.err
	}
	out := e.out
	r.usage(&out)
	return out, nil
}

func (r *run) usage(out *app.Outcome) {
	out.CPU = max(0, r.p.exit.UserTime()+r.p.exit.SystemTime()-r.p.cpu)
	out.PeakMemory = peakMemory(r.p.exit)
}

// deathTime is how long a child that hung up may take to be gone.
const deathTime = 2 * time.Second

// failed tells what became of the child. While it compiles, its end is the module's doing: nothing else runs there.
// While the program runs it is ours, unless memory ran out: a sandbox is not supposed to break.
func (r *run) failed(err error) (app.Outcome, error) {
	if f := fault.From(err); f.Code != codes.Unavailable && f.Code != codes.Canceled {
		r.p.kill() // it lives, and says that something of the host went wrong, or what it may not say
		if errors.Is(err, errProtocol) {
			r.w.cfg.Log.Error("an executor process was ended", logging.Err(err))
		}
		return app.Outcome{}, fmt.Errorf("the executor process could not run the program: %w", err)
	}
	select {
	case <-r.p.dead:
	case <-time.After(deathTime):
		r.p.kill()
		<-r.p.dead
	}
	var out app.Outcome
	r.usage(&out)
	state, words := r.p.exit.String(), r.p.stderr.String()
	memory := strings.Contains(words, "memory allocation of") || strings.Contains(words, "out of memory") || strings.Contains(words, "cannot allocate memory")
	switch {
	case wasKilled(r.p.exit): // from outside
	case !r.started && memory:
		out.Reason, out.Message = app.ReasonCompile, fmt.Sprintf("compiling the module takes more than its limit of %d bytes of memory", r.w.cfg.CompileMemory)
		return out, nil
	case !r.started:
		out.Reason, out.Message = app.ReasonCompile, "the compiler does not survive the module ("+state+")"
		return out, nil
	case memory:
		out.Reason, out.Message = app.ReasonMemoryLimit, "the program used up the memory of its sandbox's process"
		return out, nil
	}
	r.w.cfg.Log.Error("an executor process died", "state", state, "stderr", words, logging.Err(err))
	return app.Outcome{}, fmt.Errorf("the executor process ended before the program did (%s): %w", state, err)
}
