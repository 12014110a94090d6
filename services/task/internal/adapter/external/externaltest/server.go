// Package externaltest is an executor for tests that does what a task's options say, the wrong things included.
package externaltest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
)

// Do is what one run does, in this order. It travels as the task's options.
type Do struct {
	Die       bool   // the whole server
	NeverRead bool   // none of the chunks, and nothing is said
	Garbage   []byte // in place of a message
	Status    codes.Code
	Progress  float64
	NaN       bool
	Text      string
	Stderr    string
	Stdout    int    // bytes
	Huge      int    // bytes in one message
	Name      string // of an output
	Flood     bool   // stdout without an end
	Unknown   bool   // a message of a later version
	Echo      bool   // the parts on stdout, each with its name
	Hang      bool   // until the call ends
	Deaf      bool   // and longer: until the server stops
	NoFinish  bool
	Reason    string
	Message   string
	Exit      int32
	After     bool // something after the Finish
	Invalid   bool // for Validate
}

// Options is d as a task's options.
func (d Do) Options() []byte {
	b, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return b
}

// Server is one executor. Its fields may be set until it is started.
type Server struct {
	executorv1.UnimplementedExecutorServiceServer
	t        testing.TB
	About    *executorv1.DescribeResponse
	NoHealth bool
	Health   *health.Server

	mu     sync.Mutex
	grpc   *grpc.Server
	starts []*executorv1.Start
	times  []time.Duration // what each run's deadline left it
	ended  chan struct{}   // gets one for each run whose call was ended
	quiet  bool            // no answer to Describe
	live   bool            // it does not die
	dead   chan struct{}
}

// New makes one of the given type.
func New(t testing.TB, taskType string) *Server {
	return &Server{t: t, About: &executorv1.DescribeResponse{Type: taskType, Version: "1", Concurrency: 4}, ended: make(chan struct{}, 64)}
}

// raw sends bytes as they are.
type raw struct{ encoding.Codec }

type bytesMessage []byte

func (r raw) Marshal(v any) ([]byte, error) {
	if b, ok := v.(bytesMessage); ok {
		return b, nil
	}
	return r.Codec.Marshal(v)
}

// Start serves on a Unix socket until Stop or the end of the test.
func (s *Server) Start(path string) {
	s.t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		s.t.Fatal(err)
	}
	codec := raw{protoCodec{}}
	srv := grpc.NewServer(grpc.ForceServerCodec(codec))
	executorv1.RegisterExecutorServiceServer(srv, s)
	s.Health = health.NewServer()
	if !s.NoHealth {
		healthpb.RegisterHealthServer(srv, s.Health)
	}
	s.mu.Lock()
	s.grpc, s.dead = srv, make(chan struct{})
	s.mu.Unlock()
	go func() { _ = srv.Serve(l) }()
	s.t.Cleanup(s.Stop)
}

// Stop is the process's death: what runs is cut off.
func (s *Server) Stop() {
	s.mu.Lock()
	srv, dead := s.grpc, s.dead
	s.grpc = nil
	s.mu.Unlock()
	if srv != nil {
		close(dead)
		srv.Stop()
	}
}

// Quiet makes it answer no looks, as a server with one thread does while it runs something.
func (s *Server) Quiet(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = on
}

// Immortal makes it ignore Die.
func (s *Server) Immortal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = true
}

// Ended gets a value for each run that noticed the end of its call.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Starts are the runs so far, and what their deadlines left them.
func (s *Server) Starts() ([]*executorv1.Start, []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*executorv1.Start(nil), s.starts...), append([]time.Duration(nil), s.times...)
}

// Describe implements the contract.
func (s *Server) Describe(ctx context.Context, _ *executorv1.DescribeRequest) (*executorv1.DescribeResponse, error) {
	s.mu.Lock()
	quiet := s.quiet
	s.mu.Unlock()
	if quiet {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.About, nil
}

// Validate implements the contract.
func (s *Server) Validate(_ context.Context, r *executorv1.ValidateRequest) (*executorv1.ValidateResponse, error) {
	var d Do
	if err := json.Unmarshal(r.GetOptions(), &d); err != nil || d.Invalid {
		return nil, status.Error(codes.InvalidArgument, "these options are no good")
	}
	return &executorv1.ValidateResponse{}, nil
}

type stream = grpc.BidiStreamingServer[executorv1.ExecuteRequest, executorv1.ExecuteResponse]

// Execute implements the contract, more or less.
func (s *Server) Execute(st stream) error {
	m, err := st.Recv()
	if err != nil {
		return err
	}
	var left time.Duration
	if d, ok := st.Context().Deadline(); ok {
		left = time.Until(d)
	}
	s.mu.Lock()
	s.starts, s.times = append(s.starts, m.GetStart()), append(s.times, left)
	dead, live := s.dead, s.live
	s.mu.Unlock()
	var d Do
	if err := json.Unmarshal(m.GetStart().GetOptions(), &d); err != nil {
		return status.Error(codes.InvalidArgument, "these options are no good")
	}
	if d.Die && !live {
		go s.Stop()
		<-dead
		return nil
	}
	if d.NeverRead {
		<-st.Context().Done()
		return st.Context().Err()
	}
	bodies, err := parts(st, m.GetStart())
	if err != nil {
		return err
	}
	err = d.run(st, m.GetStart(), bodies)
	if st.Context().Err() != nil {
		if d.Deaf {
			<-dead
		}
		s.ended <- struct{}{}
	}
	return err
}

// parts takes the chunks.
func parts(st stream, start *executorv1.Start) ([][]byte, error) {
	out := make([][]byte, len(start.GetParts()))
	for i, p := range start.GetParts() {
		out[i] = p.GetInline()
		for p.GetStreamed() && uint64(len(out[i])) < p.GetSize() {
			m, err := st.Recv()
			if err != nil {
				return nil, err
			}
			out[i] = append(out[i], m.GetChunk().GetData()...)
		}
	}
	if _, err := st.Recv(); !errors.Is(err, io.EOF) {
		return nil, status.Error(codes.FailedPrecondition, "something follows the parts")
	}
	return out, nil
}

// Answers of the contract.
func output(name string, b []byte) *executorv1.ExecuteResponse {
	return &executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Output{Output: &executorv1.Output{Name: name, Data: b}}}
}

func (d *Do) run(st stream, start *executorv1.Start, bodies [][]byte) error {
	_ = st.Send(&executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Started{Started: &executorv1.Started{}}})
	if len(d.Garbage) > 0 {
		return st.SendMsg(bytesMessage(d.Garbage))
	}
	if d.Status != codes.OK {
		return status.Error(d.Status, "as the options say")
	}
	if d.Progress != 0 || d.NaN || d.Text != "" {
		f := d.Progress
		if d.NaN {
			f = math.NaN()
		}
		_ = st.Send(&executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Progress{Progress: &executorv1.Progress{Fraction: f, Text: d.Text}}})
	}
	if d.Unknown {
		_ = st.SendMsg(bytesMessage{0xa2, 0x06, 0x01, 'x'}) // field 100
	}
	if d.Stderr != "" {
		_ = st.Send(output("stderr", []byte(d.Stderr)))
	}
	if d.Huge > 0 {
		return st.Send(output("stdout", make([]byte, d.Huge)))
	}
	if d.Name != "" {
		_ = st.Send(output(d.Name, []byte("x")))
	}
	for left := d.Stdout; left > 0; left -= min(left, 64<<10) {
		_ = st.Send(output("stdout", make([]byte, min(left, 64<<10))))
	}
	if d.Echo {
		for i, b := range bodies {
			_ = st.Send(output("stdout", append([]byte(start.GetParts()[i].GetName()+":"), b...)))
		}
	}
	for d.Flood {
		if err := st.Send(output("stdout", make([]byte, 64<<10))); err != nil {
			return err
		}
	}
	if d.Hang || d.Deaf {
		<-st.Context().Done()
		return st.Context().Err()
	}
	if d.NoFinish {
		return nil
	}
	err := st.Send(&executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Finish{Finish: &executorv1.Finish{ExitCode: d.Exit, Reason: d.Reason, Message: d.Message}}})
	if d.After {
		_ = st.Send(output("stdout", []byte("and another thing")))
	}
	return err
}
