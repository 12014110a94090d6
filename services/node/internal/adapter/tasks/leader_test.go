package tasks

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/rpc"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// replicas is what a client meets that goes round: each call comes to the next one, and the last one leads.
type replicas struct {
	taskv1.UnimplementedTaskServiceServer
	mu     sync.Mutex
	others int // calls that come to others first
	ends   int // watches that end before the task does
	calls  int
}

func (r *replicas) next() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.others > 0 {
		r.others--
		return fault.FailedPrecondition("NOT_LEADING", "another one leads")
	}
	return nil
}

func (r *replicas) Describe(context.Context, *taskv1.DescribeRequest) (*taskv1.DescribeResponse, error) {
	return &taskv1.DescribeResponse{SealingKey: "key"}, r.next()
}

func (r *replicas) WatchTask(_ *taskv1.WatchTaskRequest, s grpc.ServerStreamingServer[taskv1.WatchTaskResponse]) error {
	if err := r.next(); err != nil {
		return err
	}
	say := func(state string, revision uint64) error {
		return s.Send(&taskv1.WatchTaskResponse{Task: &taskv1.Task{State: state, Revision: revision}})
	}
	if err := say("RUNNING", 1); err != nil {
		return err
	}
	r.mu.Lock()
	r.ends--
	ended := r.ends >= 0
	r.mu.Unlock()
	if ended {
		return fault.Unavailable(fault.ReasonShuttingDown, "the stream has stood for as long as one may")
	}
	return say("COMPLETED", 2)
}

func client(t *testing.T, r *replicas) *Client {
	cc := grpctest.Start(t, func(s *rpc.Server) { taskv1.RegisterTaskServiceServer(s, r) })
	return &Client{api: taskv1.NewTaskServiceClient(cc)}
}

func TestCallsComeToTheLeader(t *testing.T) {
	r := &replicas{others: 5}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if d, err := client(t, r).Describe(ctx); err != nil || d.GetSealingKey() != "key" || r.calls != 6 {
		t.Errorf("Describe = %v, %v after %d calls", d, err, r.calls)
	}
	r = &replicas{others: 1 << 30}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := client(t, r).Describe(short); fault.From(err).Code.String() != "Unavailable" || r.calls < 2 {
		t.Errorf("without a leader: %v after %d calls", err, r.calls)
	}
}

func TestAWatchGoesOnAtAnotherReplica(t *testing.T) {
	r := &replicas{others: 3, ends: 4}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var states []string
	err := client(t, r).Watch(ctx, "task", func(task *taskv1.Task) error {
		states = append(states, task.GetState())
		return nil
	})
	if err != nil || len(states) != 2 || states[0] != "RUNNING" || states[1] != "COMPLETED" || r.calls != 8 {
		t.Errorf("Watch = %v, %v after %d calls", states, err, r.calls)
	}
	gone := errors.New("the user has gone")
	if err := client(t, &replicas{}).Watch(ctx, "task", func(*taskv1.Task) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("Watch for nobody = %v", err)
	}
}

// pair is two replicas, of which one leads: watches and sessions come to it, and a session that stands stays where it is.
type pair struct {
	taskv1.UnimplementedTaskServiceServer
	mu       sync.Mutex
	leads    string // "": none does
	changed  chan struct{}
	sessions chan string // who has said hello where
}

func (p *pair) lead(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leads = name
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pair) now() (leads string, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leads == "" {
		err = fault.FailedPrecondition("NOT_LEADING", "another one leads")
	}
	return p.leads, p.changed, err
}

func (p *pair) WatchQueue(_ *taskv1.WatchQueueRequest, s grpc.ServerStreamingServer[taskv1.WatchQueueResponse]) error {
	began, changed, err := p.now()
	for err == nil {
		if err = s.Send(&taskv1.WatchQueueResponse{}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
		var leads string
		if leads, changed, err = p.now(); err == nil && leads != began {
			err = fault.FailedPrecondition("NOT_LEADING", "another one leads")
		}
	}
	return err
}

func (p *pair) Session(s grpc.BidiStreamingServer[taskv1.SessionRequest, taskv1.SessionResponse]) error {
	leads, _, err := p.now()
	if err != nil {
		return err
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		if r.GetHello() != nil {
			p.sessions <- leads
		}
		if err := s.Send(&taskv1.SessionResponse{Seq: r.GetSeq(), Synced: true}); err != nil {
			return err
		}
	}
}

type deaf struct{}

func (deaf) Opened()                       {}
func (deaf) Heard(*taskv1.SessionResponse) {}
func (deaf) Lost(error)                    {}

// A session with a replica that leads no more stands until another one leads, and is taken there then.
func TestTheSessionFollowsTheLead(t *testing.T) {
	p := &pair{leads: "one", changed: make(chan struct{}), sessions: make(chan string, 16)}
	cc := grpctest.Start(t, func(s *rpc.Server) { taskv1.RegisterTaskServiceServer(s, p) })
	c := New(cc, "node", slog.New(slog.DiscardHandler))
	c.Open(deaf{})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	watched := make(chan struct{}, 16)
	ended := make(chan error, 1)
	go func() { ended <- c.WatchQueue(ctx, func(*eventv1.Queue, uint64) { watched <- struct{}{} }) }()
	wait := func(what string, news <-chan struct{}) {
		t.Helper()
		select {
		case <-news:
		case <-ctx.Done():
			t.Fatal(what)
		}
	}
	session := func() string {
		t.Helper()
		select {
		case at := <-p.sessions:
			return at
		case <-ctx.Done():
			t.Fatal("no session was opened")
			return ""
		}
	}
	wait("the queue is not watched", watched)
	if at := session(); at != "one" {
		t.Fatalf("the session is with %q", at)
	}
	p.lead("") // nobody
	p.lead("") // and whoever looked has looked once more
	if _, err := c.do(ctx, &taskv1.SessionRequest{Command: &taskv1.SessionRequest_Online{Online: &taskv1.OnlineChanged{Online: true}}}, nil); err != nil {
		t.Fatalf("the session that stood: %v", err)
	}
	if len(p.sessions) > 0 {
		t.Fatal("the session was given up though nobody leads")
	}
	p.lead("two")
	wait("the queue is not watched at the other one", watched)
	if at := session(); at != "two" {
		t.Fatalf("the session is with %q", at)
	}
	cancel()
	<-ended
}
