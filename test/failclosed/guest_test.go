package failclosed

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/anonymous"
)

// guest is the node that has an executor of its own.
const guest = "guest"

// shout is an executor that prints its options.
type shout struct {
	executorv1.UnimplementedExecutorServiceServer
}

func (shout) Describe(context.Context, *executorv1.DescribeRequest) (*executorv1.DescribeResponse, error) {
	return &executorv1.DescribeResponse{Type: "shout", Version: "1", Concurrency: 1}, nil
}

func (shout) Validate(context.Context, *executorv1.ValidateRequest) (*executorv1.ValidateResponse, error) {
	return &executorv1.ValidateResponse{}, nil
}

func (shout) Execute(st grpc.BidiStreamingServer[executorv1.ExecuteRequest, executorv1.ExecuteResponse]) error {
	m, err := st.Recv()
	if err != nil {
		return err
	}
	said := m.GetStart().GetOptions()
	for err == nil {
		_, err = st.Recv()
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	for _, r := range []*executorv1.ExecuteResponse{
		{Response: &executorv1.ExecuteResponse_Started{Started: &executorv1.Started{}}},
		{Response: &executorv1.ExecuteResponse_Output{Output: &executorv1.Output{Name: "stdout", Data: said}}},
		{Response: &executorv1.ExecuteResponse_Finish{Finish: &executorv1.Finish{}}},
	} {
		if err := st.Send(r); err != nil {
			return err
		}
	}
	return nil
}

// A node that uses the machine's tor, and has an executor on a Unix socket.
func (s *session) guestExecutor(t *testing.T) {
	socket := filepath.Join(s.dir, "shout.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	executorv1.RegisterExecutorServiceServer(server, shout{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	begin := time.Now()
	s.Up(t, guest, "provider-2", "--role", "provider", "--executor", "shout=unix:"+socket)
	t.Logf("the guest was ready after %v", time.Since(begin).Round(time.Second))
	c, err := s.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	anonymous.Eventually(t, 2*time.Minute, "the consumer knows the guest's executor", func() bool {
		r, err := c.ListPeers(t.Context(), &nodev1.ListPeersRequest{Capability: "shout", State: "available"})
		return err == nil && len(r.GetPeers()) > 0
	})
	s.Want(t, consumer, "aloud", "run", "shout", "--option", "aloud")
}
