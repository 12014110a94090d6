// Package executorchecktest is an executor to be checked, with mistakes to order.
package executorchecktest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
)

// Server counts the bytes of its parts; with the options "slow" it takes its time. Its fields are mistakes.
type Server struct {
	executorv1.UnimplementedExecutorServiceServer
	About      *executorv1.DescribeResponse
	Lenient    bool // it takes every payload
	Crashes    bool // in place of a run
	NoFinish   bool
	After      bool // something follows the Finish
	Outside    bool // an output outside of its directory
	Reason     string
	NaN        bool
	Forgetful  bool // it ends otherwise when a run comes again
	InlineOnly bool // it takes no chunks
	Deaf       bool // it does not hear of cancels
	Refuses    bool // stdin

	places chan struct{}
	over   chan struct{} // closed with the server
	mu     sync.Mutex
	seen   map[string]bool
}

// Start serves until the test ends, and returns the address.
func Start(t testing.TB, s *Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if s.About == nil {
		s.About = &executorv1.DescribeResponse{Type: "count", Version: "1", Concurrency: 2}
	}
	s.places, s.over, s.seen = make(chan struct{}, 2), make(chan struct{}), map[string]bool{}
	srv := grpc.NewServer()
	executorv1.RegisterExecutorServiceServer(srv, s)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() {
		close(s.over)
		srv.Stop()
	})
	return "unix:" + path
}

// Describe implements the contract.
func (s *Server) Describe(context.Context, *executorv1.DescribeRequest) (*executorv1.DescribeResponse, error) {
	return s.About, nil
}

// Validate implements the contract.
func (s *Server) Validate(_ context.Context, r *executorv1.ValidateRequest) (*executorv1.ValidateResponse, error) {
	if bytes.HasPrefix(r.GetOptions(), []byte("bad")) && !s.Lenient {
		return nil, status.Error(codes.InvalidArgument, "these are bad options")
	}
	return &executorv1.ValidateResponse{}, nil
}

// Execute implements the contract.
func (s *Server) Execute(st grpc.BidiStreamingServer[executorv1.ExecuteRequest, executorv1.ExecuteResponse]) error {
	m, err := st.Recv()
	if err != nil {
		return err
	}
	start := m.GetStart()
	select {
	case s.places <- struct{}{}:
	default:
		return status.Error(codes.ResourceExhausted, "two at a time")
	}
	defer func() { <-s.places }()
	if s.Crashes {
		return status.Error(codes.Internal, "it crashed")
	}
	if s.Refuses && len(start.GetParts()) > 0 {
		return status.Error(codes.InvalidArgument, "no parts, please")
	}
	_ = st.Send(&executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Started{Started: &executorv1.Started{}}})
	for {
		m, err := st.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && s.Deaf && string(start.GetOptions()) == "slow" {
			break // a cancel that comes before the last part is not heard either
		}
		if err != nil {
			return err
		}
		if s.InlineOnly && m.GetChunk() != nil {
			return status.Error(codes.Unimplemented, "chunks")
		}
	}
	if string(start.GetOptions()) == "slow" {
		if s.Deaf {
			<-s.over
		} else {
			<-st.Context().Done()
			return st.Context().Err()
		}
	}
	return s.end(st, start)
}

func (s *Server) end(st grpc.BidiStreamingServer[executorv1.ExecuteRequest, executorv1.ExecuteResponse], start *executorv1.Start) error {
	output := func(name string) *executorv1.ExecuteResponse {
		return &executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Output{Output: &executorv1.Output{Name: name, Data: []byte("x")}}}
	}
	_ = st.Send(output("stdout"))
	if s.Outside {
		_ = st.Send(output("output:../../etc/passwd"))
	}
	if s.NaN {
		_ = st.Send(&executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Progress{Progress: &executorv1.Progress{Fraction: math.NaN()}}})
	}
	if s.NoFinish {
		return nil
	}
	f := &executorv1.Finish{Reason: s.Reason}
	s.mu.Lock()
	if s.Forgetful && s.seen[start.GetTaskId()] {
		f.ExitCode = 1
	}
	s.seen[start.GetTaskId()] = true
	s.mu.Unlock()
	_ = st.Send(&executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Finish{Finish: f}})
	if s.After {
		_ = st.Send(output("stdout"))
	}
	return nil
}
