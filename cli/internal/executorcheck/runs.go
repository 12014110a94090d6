package executorcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/treepath"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
)

const (
	outputLimit = 64 << 20 // bytes that a run may give
	memoryLimit = 1 << 30
	chunkSize   = 64 << 10
	beginTime   = 10 * time.Second // until a run says anything
	endTime     = time.Second      // until a run that was ended leaves its place
)

func (c *checker) limits() *executorv1.Limits {
	return &executorv1.Limits{Time: durationpb.New(c.cfg.Timeout), Memory: max(memoryLimit, c.about.GetMemory()), Output: outputLimit}
}

// outcome is a run that has ended.
type outcome struct {
	finish *executorv1.Finish
	bodies map[string]int // bytes by name
}

func (o *outcome) String() string {
	text := fmt.Sprintf("exit code %d", o.finish.GetExitCode())
	if o.finish.GetReason() != "" {
		text = fmt.Sprintf("%s: %s", o.finish.GetReason(), o.finish.GetMessage())
	}
	return fmt.Sprintf("%s; %d bytes of stdout", text, o.bodies["stdout"])
}

// call is one Execute in the making.
type call struct {
	grpc.BidiStreamingClient[executorv1.ExecuteRequest, executorv1.ExecuteResponse]
	stop context.CancelFunc
	out  outcome
	size int
}

// begin hands over a Start and its streamed parts.
func (c *checker) begin(ctx context.Context, start *executorv1.Start, parts []Part) (*call, error) {
	ctx, stop := context.WithTimeout(ctx, c.cfg.Timeout+beginTime)
	s, err := c.client.Execute(ctx)
	if err != nil {
		stop()
		return nil, err
	}
	r := &call{BidiStreamingClient: s, stop: stop, out: outcome{bodies: map[string]int{}}}
	go func() { // an executor may answer before it has taken everything; what it says tells how it went
		if s.Send(&executorv1.ExecuteRequest{Request: &executorv1.ExecuteRequest_Start{Start: start}}) != nil {
			return
		}
		for i, p := range start.GetParts() {
			for data := parts[i].Data; p.GetStreamed() && len(data) > 0; {
				n := min(len(data), chunkSize)
				if s.Send(&executorv1.ExecuteRequest{Request: &executorv1.ExecuteRequest_Chunk{Chunk: &executorv1.Chunk{Data: data[:n]}}}) != nil {
					return
				}
				data = data[n:]
			}
		}
		_ = s.CloseSend()
	}()
	return r, nil
}

var reasonShape = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// next takes one answer; done says that it was the Finish.
func (r *call) next() (done bool, err error) {
	m, err := r.Recv()
	if errors.Is(err, io.EOF) {
		return false, errors.New("the call ended without a Finish")
	}
	if err != nil {
		return false, err
	}
	switch m := m.GetResponse().(type) {
	case *executorv1.ExecuteResponse_Output:
		name := m.Output.GetName()
		if !validName(name) {
			return false, fmt.Errorf("it gives an output %q: it must be stdout, stderr, or output: and a relative path without \"..\"", short(name))
		}
		r.out.bodies[name] += len(m.Output.GetData())
		if r.size += len(m.Output.GetData()); r.size > outputLimit {
			return false, fmt.Errorf("it gives more than its limit of %d bytes of output: end with OUTPUT_LIMIT", outputLimit)
		}
	case *executorv1.ExecuteResponse_Progress:
		if f := m.Progress.GetFraction(); math.IsNaN(f) || f < 0 || f > 1 {
			return false, fmt.Errorf("it gives a progress of %v, which is not from 0 to 1", f)
		}
	case *executorv1.ExecuteResponse_Finish:
		r.out.finish = m.Finish
		if reason := m.Finish.GetReason(); reason != "" && !reasonShape.MatchString(reason) {
			return false, fmt.Errorf("it gives the reason %q, which is not UPPER_SNAKE of at most 64 bytes", short(reason))
		}
		return true, nil
	}
	return false, nil
}

func validName(name string) bool {
	p, ok := strings.CutPrefix(name, "output:")
	return name == "stdout" || name == "stderr" || ok && treepath.Check(p) == nil
}

// finish takes answers until the Finish and the end of the call.
func (r *call) finish() (*outcome, error) {
	defer r.stop()
	for {
		done, err := r.next()
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
	}
	if _, err := r.Recv(); err == nil {
		return nil, errors.New("something follows the Finish: it must be the last message")
	}
	return &r.out, nil
}

func (c *checker) whole(ctx context.Context, id string, streamed bool, parts []Part) (*outcome, error) {
	r, err := c.begin(ctx, c.start(id, c.cfg.Options, parts, streamed), parts)
	if err != nil {
		return nil, err
	}
	return r.finish()
}

func (c *checker) run(ctx context.Context) (string, error) {
	o, err := c.whole(ctx, c.task, false, c.cfg.Parts)
	if err != nil {
		return "", err
	}
	c.first = o
	return o.String(), nil
}

func (c *checker) repeat(ctx context.Context) (string, error) {
	if c.first == nil {
		return "", skip("the first run failed")
	}
	o, err := c.whole(ctx, c.task, false, c.cfg.Parts)
	if err != nil {
		return "", fmt.Errorf("a run that comes again, as after a crash of the provider, must end as the first did: %w", err)
	}
	if o.finish.GetExitCode() != c.first.finish.GetExitCode() || o.finish.GetReason() != c.first.finish.GetReason() {
		return "", fmt.Errorf("the first run ended with %v, and the same again with %v", c.first, o)
	}
	return o.String(), nil
}

// chunks streams what was inline before: the outcome must be the same. Without parts of the user's, one is made up, which the executor
// may refuse.
func (c *checker) chunks(ctx context.Context) (string, error) {
	parts, own := c.cfg.Parts, false
	for _, p := range parts {
		own = own || len(p.Data) > 0
	}
	if !own {
		parts = []Part{{Name: "stdin", Data: []byte(strings.Repeat("shallot checks this executor\n", 10_000))}}
	}
	o, err := c.whole(ctx, taskID(), true, parts)
	switch {
	case !own && err != nil && fault.From(err).Code == codes.InvalidArgument:
		return "refused 290 kB of stdin", nil
	case err != nil:
		return "", err
	case own && c.first != nil && (o.finish.GetExitCode() != c.first.finish.GetExitCode() || o.finish.GetReason() != c.first.finish.GetReason()):
		return "", fmt.Errorf("with its parts inline the run ended with %v, and with the same parts in chunks with %v", c.first, o)
	}
	return o.String(), nil
}

// slow begins as many runs as the executor takes, and waits until each has begun. It is a skip when one ends by itself.
func (c *checker) slow(ctx context.Context) ([]*call, error) {
	runs, ended, err := c.places(ctx, beginTime)
	if err == nil && ended {
		err = skip("the run ended before it could be cancelled: give one that takes some seconds with --slow-payload")
	}
	return runs, err
}

// within is next with a time.
func (r *call) within(d time.Duration) (done bool, err error) {
	t := time.AfterFunc(d, r.stop)
	done, err = r.next()
	if !t.Stop() {
		return false, fmt.Errorf("nothing came within %v: send Started as soon as the run begins", d)
	}
	return done, err
}

func stopAll(runs []*call) {
	for _, r := range runs {
		r.stop()
	}
}

// cancel ends runs in the middle. That they are over shows in that as many others begin at once.
func (c *checker) cancel(ctx context.Context) (string, error) {
	runs, err := c.slow(ctx)
	defer func() { stopAll(runs) }()
	if err != nil {
		return "", err
	}
	stopAll(runs)
	begin := time.Now()
	again, _, err := c.places(ctx, endTime)
	defer func() { stopAll(again) }()
	if err != nil {
		return "", fmt.Errorf("after %d runs were cancelled, others do not begin: look at the call's end while a program runs: %w", len(runs), err)
	}
	return fmt.Sprintf("%d cancelled; as many others began %v later", len(runs), time.Since(begin).Round(time.Millisecond)), nil
}

// pause is between two tries of a run that the executor has no place for yet.
const pause = 20 * time.Millisecond

// places begins as many runs as the executor takes and wants each to begin, or to end, in time. RESOURCE_EXHAUSTED is a fair answer
// until then: runs that were cancelled leave their places a moment later.
func (c *checker) places(ctx context.Context, d time.Duration) (runs []*call, ended bool, err error) {
	deadline := time.Now().Add(d)
	for len(runs) < c.width() {
		r, err := c.begin(ctx, c.start(taskID(), c.slowOptions(), c.cfg.Parts, false), c.cfg.Parts)
		if err != nil {
			return runs, ended, err
		}
		done, err := r.within(time.Until(deadline))
		if err == nil {
			runs, ended = append(runs, r), ended || done
			continue
		}
		r.stop()
		if fault.From(err).Code != codes.ResourceExhausted || !time.Now().Before(deadline) {
			return runs, ended, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return runs, ended, ctx.Err()
		}
	}
	return runs, ended, nil
}

func (c *checker) slowOptions() []byte {
	if c.cfg.Slow != nil {
		return c.cfg.Slow
	}
	return c.cfg.Options
}

// cut breaks the connection under a run, as the death of a provider does.
func (c *checker) cut(ctx context.Context) (string, error) {
	runs, err := c.slow(ctx)
	ended := ""
	var s skip
	switch {
	case errors.As(err, &s): // the connection is cut all the same
		ended = " (the run had ended by itself)"
	case err != nil:
		stopAll(runs)
		return "", err
	}
	_ = c.conn.Close()
	stopAll(runs)
	if err := c.connect(); err != nil {
		return "", err
	}
	again, _, err := c.places(ctx, answerTime)
	defer func() { stopAll(again) }()
	if err != nil {
		return "", fmt.Errorf("after the connection was cut, and made again, runs do not begin: %w", err)
	}
	return "it takes runs again" + ended, nil
}
