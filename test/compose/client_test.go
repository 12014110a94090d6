package compose

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func dial(t *testing.T, at string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// clients: whoever has a certificate calls the node over the published port, until it is taken back.
func (p *project) clients(t *testing.T) {
	p = p.with(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	at := strings.TrimSpace(p.must(p.compose(time.Minute, "port", "node", "7400")))
	creds, err := p.Client(ctx, "pki", "laptop", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	call := func(c *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := nodev1.NewNodeServiceClient(c).GetNode(ctx, &nodev1.GetNodeRequest{})
		return err
	}
	laptop := dial(t, at, creds)
	if err := call(laptop); err != nil {
		t.Fatal(err)
	}
	// It calls the node, and nothing behind it: the other services are on no network of its, so the one that it reaches is asked for theirs.
	_, err = taskv1.NewTaskServiceClient(laptop).ListTasks(ctx, &taskv1.ListTasksRequest{})
	if code := status.Code(err); code != codes.Unimplemented && code != codes.PermissionDenied {
		t.Errorf("a call of another service: %v", err)
	}
	if err := call(dial(t, at, insecure.NewCredentials())); err == nil {
		t.Error("plain text was answered")
	}
	if err := call(dial(t, at, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}))); err == nil { //nolint:gosec // what a stranger would do
		t.Error("a caller without a certificate was answered")
	}
	if out, err := p.PKI(ctx, "pki", "client", "ls"); err != nil || !strings.Contains(out, "laptop") {
		t.Errorf("%q, %v", out, err)
	}
	p.must(p.PKI(ctx, "pki", "client", "revoke", "laptop"))
	eventually(ctx, t, "the revoked client is refused", func() bool { return call(laptop) != nil })
	eventually(ctx, t, "and stays so on a new connection", func() bool { return call(dial(t, at, creds)) != nil })
}
