package compose

import (
	"archive/tar"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
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

// pki gives a command where the authority is.
func (p *project) pki(args ...string) (string, error) {
	return p.compose(time.Minute, append([]string{"exec", "-T", "pki", "shallot", "--home", "/var/lib/shallot"}, args...)...)
}

// untar writes what `client add --out -` prints.
func untar(t *testing.T, archive, dir string) {
	t.Helper()
	for r := tar.NewReader(strings.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(h.Name)), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// withFiles is what any program in any language does with the three files: nothing of Shallot's own code is in it.
func withFiles(t *testing.T, dir string) credentials.TransportCredentials {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS13})
}

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
	dir := t.TempDir()
	untar(t, p.must(p.pki("client", "add", "laptop", "--out", "-")), dir)
	call := func(c *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := nodev1.NewNodeServiceClient(c).GetNode(ctx, &nodev1.GetNodeRequest{})
		return err
	}
	laptop := dial(t, at, withFiles(t, dir))
	if err := call(laptop); err != nil {
		t.Fatal(err)
	}
	// It calls the node, and nothing behind it: the other services are on no network of its, so the one that it reaches is asked for theirs.
	_, err := taskv1.NewTaskServiceClient(laptop).ListTasks(ctx, &taskv1.ListTasksRequest{})
	if code := status.Code(err); code != codes.Unimplemented && code != codes.PermissionDenied {
		t.Errorf("a call of another service: %v", err)
	}
	if err := call(dial(t, at, insecure.NewCredentials())); err == nil {
		t.Error("plain text was answered")
	}
	if err := call(dial(t, at, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}))); err == nil { //nolint:gosec // what a stranger would do
		t.Error("a caller without a certificate was answered")
	}
	if out, err := p.pki("client", "ls"); err != nil || !strings.Contains(out, "laptop") {
		t.Errorf("%q, %v", out, err)
	}
	p.must(p.pki("client", "revoke", "laptop"))
	eventually(ctx, t, "the revoked client is refused", func() bool { return call(laptop) != nil })
	eventually(ctx, t, "and stays so on a new connection", func() bool { return call(dial(t, at, withFiles(t, dir))) != nil })
}
