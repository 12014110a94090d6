// Package interop tests the broker's content against a real Kubo: what either puts, the other has whole.
package interop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/kubo"
)

// long says that the large sizes are wanted.
func long() bool { return os.Getenv("SHALLOT_LONG") != "" }

var program = sync.OnceValues(func() (string, error) { return kubo.Build(context.Background()) })

// startKubo starts a Kubo that knows nobody. Where there is none the test is left out, and says so; CI must have one.
func startKubo(t *testing.T) *kubo.Daemon {
	t.Helper()
	path, err := program()
	if errors.Is(err, kubo.ErrUnavailable) && os.Getenv("CI") != "true" {
		t.Skipf("not compared with Kubo: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubo.Start(t.Context(), path, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Stop(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// broker is the real process, alone.
type broker struct {
	id         string
	addresses  []string // with /p2p
	network    brokerv1.NetworkServiceClient
	repository brokerv1.RepositoryServiceClient
}

func startBroker(t *testing.T) *broker {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "b") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var said bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "shallot-broker"), "--home", dir)
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("the broker ended with %v and said\n%s", err, said.String())
		}
	})
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := rpc.Dial(h.Endpoint("broker"), rpc.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	b := &broker{network: brokerv1.NewNetworkServiceClient(cc), repository: brokerv1.NewRepositoryServiceClient(cc)}
	serving := func() bool {
		r, err := grpc_health_v1.NewHealthClient(cc).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		return err == nil && r.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING
	}
	eventually(t, time.Minute, "the broker serves", serving)
	self, err := b.network.Self(t.Context(), &brokerv1.SelfRequest{})
	if err != nil {
		t.Fatal(err)
	}
	b.id = self.GetPeerId()
	for _, a := range self.GetAddresses() {
		b.addresses = append(b.addresses, a+"/p2p/"+b.id)
	}
	return b
}

// connect has Kubo dial the broker.
func (b *broker) connect(t *testing.T, k *kubo.Daemon) {
	t.Helper()
	if _, err := k.Run(t.Context(), nil, "swarm", "connect", b.addresses[0]); err != nil {
		t.Fatal(err)
	}
}

// dial has the broker dial Kubo.
func (b *broker) dial(t *testing.T, k *kubo.Daemon) {
	t.Helper()
	addrs, err := k.Addresses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.network.Connect(t.Context(), &brokerv1.ConnectRequest{Addresses: addrs}); err != nil {
		t.Fatalf("dial Kubo at %v: %v", addrs, err)
	}
}

func (b *broker) put(t *testing.T, r io.Reader) string {
	t.Helper()
	s, err := b.repository.Put(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	options := &brokerv1.PutOptions{Pin: &brokerv1.PinOptions{Owner: "test"}}
	err = s.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Options{Options: options}})
	buf := make([]byte, 1<<20)
	for err == nil {
		n, rerr := io.ReadFull(r, buf)
		if n > 0 {
			err = s.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Data{Data: buf[:n]}})
		}
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			break
		}
		if rerr != nil {
			t.Fatal(rerr)
		}
	}
	resp, err := s.CloseAndRecv()
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetCid()
}

// putTree stores a directory.
func (b *broker) putTree(t *testing.T, dir string) string {
	t.Helper()
	s, err := b.repository.Put(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	options := &brokerv1.PutOptions{Directory: true, Pin: &brokerv1.PinOptions{Owner: "test"}}
	err = s.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Options{Options: options}})
	if err == nil {
		err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err != nil || path == dir {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			entry := &brokerv1.PutEntry{Path: filepath.ToSlash(name), Directory: e.IsDir()}
			if err := s.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Entry{Entry: entry}}); err != nil || e.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			for len(data) > 0 && err == nil {
				n := min(len(data), 1<<20)
				err = s.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Data{Data: data[:n]}})
				data = data[n:]
			}
			return err
		})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	resp, err := s.CloseAndRecv()
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetCid()
}

// list returns the sizes of a directory's files.
func (b *broker) list(t *testing.T, cid string) map[string]uint64 {
	t.Helper()
	s, err := b.repository.List(t.Context(), &brokerv1.ListRequest{Cid: cid, Recursive: true})
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]uint64{}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return sizes
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.GetEntries() {
			if e.GetKind() != "directory" {
				sizes[e.GetPath()] = e.GetSize()
			}
		}
	}
}

// get writes a file's bytes to w.
func (b *broker) get(ctx context.Context, req *brokerv1.GetRequest, w io.Writer) error {
	s, err := b.repository.Get(ctx, req)
	if err != nil {
		return err
	}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(m.GetData()); err != nil {
			return err
		}
	}
}

func (b *broker) pin(t *testing.T, cid string) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	r, err := b.repository.Pin(ctx, &brokerv1.PinRequest{Cid: cid, Pin: &brokerv1.PinOptions{Owner: "test"}})
	if err != nil {
		t.Fatalf("pin %s: %v", cid, err)
	}
	return r.GetSize()
}

func eventually(t *testing.T, timeout time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", timeout, what)
		case <-tick.C:
		}
	}
}
