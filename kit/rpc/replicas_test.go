package rpc_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
	"github.com/shallot-net/shallot/kit/rpc"
)

// names is a name server with one name.
type names struct {
	mu    sync.Mutex
	addrs []string
}

func (n *names) set(addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs = addrs
}

func (*names) Scheme() string { return "dns" }

func (n *names) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	r := &lookUp{n, cc}
	r.ResolveNow(resolver.ResolveNowOptions{})
	return r, nil
}

type lookUp struct {
	n  *names
	cc resolver.ClientConn
}

func (l *lookUp) ResolveNow(resolver.ResolveNowOptions) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	var s resolver.State
	for _, a := range l.n.addrs {
		s.Endpoints = append(s.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	_ = l.cc.UpdateState(s)
}

func (*lookUp) Close() {}

// fleet is several replicas of node behind one name.
type fleet struct {
	ca    *mtlstest.CA
	names *names
	nodes []*secured
}

func newFleet(t *testing.T, size int, cfg rpc.ServerConfig, unary func(name string) unaryFunc) *fleet {
	t.Helper()
	f := &fleet{ca: mtlstest.NewCA(t), names: &names{}}
	for range size {
		f.add(t, cfg, unary)
	}
	t.Cleanup(rpc.LookUpWith(f.names, 20*time.Millisecond))
	return f
}

func (f *fleet) add(t *testing.T, cfg rpc.ServerConfig, unary func(name string) unaryFunc) {
	t.Helper()
	name := fmt.Sprint(len(f.nodes))
	f.nodes = append(f.nodes, serveNode(t, cfg, f.ca.Credentials("node"), nodeService(unary(name), standing(name))))
	var addrs []string
	for _, n := range f.nodes {
		addrs = append(addrs, n.addr)
	}
	f.names.set(addrs...)
}

func (f *fleet) dial(t *testing.T, timeout time.Duration) *grpc.ClientConn {
	t.Helper()
	return dial(t, "node:7000", rpc.ClientConfig{Service: "the node", Peer: "node", TLS: f.ca.Credentials("cli/x"), Timeout: timeout})
}

// saying answers with the replica's name.
func saying(name string) unaryFunc {
	return func(context.Context, string) (string, error) { return name, nil }
}

// spread makes calls until all replicas of want have answered, and none other has for as many calls.
func spread(t *testing.T, cc *grpc.ClientConn, want string) {
	t.Helper()
	var seen string
	eventually(t, func() bool {
		got := map[string]bool{}
		for range 12 {
			out, err := invoke(t.Context(), cc, getNode, "")
			if err != nil {
				t.Fatal(err)
			}
			got[out] = true
		}
		seen = ""
		for _, name := range []string{"0", "1", "2", "3"} {
			if got[name] {
				seen += name
			}
		}
		return seen == want
	})
}

func TestReplicasComeAndGo(t *testing.T) {
	f := newFleet(t, 2, rpc.ServerConfig{}, saying)
	cc := f.dial(t, 0)
	spread(t, cc, "01")
	f.add(t, rpc.ServerConfig{}, saying) // a new one gets calls without any connection having broken
	spread(t, cc, "012")
	f.nodes[1].stop() // a dead one is passed over, and no call is lost
	spread(t, cc, "02")
	f.names.set(f.nodes[2].addr) // one that is not named any more
	spread(t, cc, "2")
	f.names.set(f.nodes[0].addr)
	spread(t, cc, "0")
}

// A replica that is connected and does not answer costs the calls that are with it their own time, not their outcome, and then gets no more.
func TestReplicaThatHangsIsPassedOver(t *testing.T) {
	const timeout = 600 * time.Millisecond
	var hangs atomic.Bool
	var hung atomic.Int32
	f := newFleet(t, 3, rpc.ServerConfig{}, func(name string) unaryFunc {
		return func(ctx context.Context, _ string) (string, error) {
			if name == "1" && hangs.Load() {
				hung.Add(1)
				<-ctx.Done()
				return "", ctx.Err()
			}
			return name, nil
		}
	})
	cc := f.dial(t, timeout)
	spread(t, cc, "012")
	hangs.Store(true)
	began := time.Now()
	lost := 0
	for hung.Load() < 3 {
		start := time.Now()
		out, err := invoke(t.Context(), cc, getNode, "")
		if err != nil || out == "1" {
			t.Errorf("a call that changes nothing: %q, %v", out, err)
		}
		if d := time.Since(start); d > 2*timeout {
			t.Errorf("it took %v", d)
		}
		if hung.Load() == 3 {
			break
		}
		// What changes something is not made again by itself.
		if _, err := invoke(t.Context(), cc, submitTask, ""); err != nil {
			lost++
			wantReason(t, err, codes.DeadlineExceeded, fault.ReasonDeadline)
		}
		if time.Since(began) > 15*time.Second {
			t.Fatal("it is still in rotation after 15 s")
		}
	}
	at := hung.Load()
	for range 30 {
		if _, err := invoke(t.Context(), cc, submitTask, ""); err != nil {
			t.Errorf("after %d calls without an answer: %v", at, err)
		}
	}
	if got := hung.Load(); got != at {
		t.Errorf("it got %d more calls", got-at)
	}
	t.Logf("out of rotation after %v; %d calls that change something lost", time.Since(began).Round(time.Millisecond), lost)
}

// Where all hang there is nobody to pass over: calls go on to be made, so that the first that recovers is found.
func TestAllReplicasHang(t *testing.T) {
	var hangs atomic.Bool
	hangs.Store(true)
	f := newFleet(t, 2, rpc.ServerConfig{}, func(name string) unaryFunc {
		return func(ctx context.Context, _ string) (string, error) {
			if hangs.Load() {
				<-ctx.Done()
				return "", ctx.Err()
			}
			return name, nil
		}
	})
	cc := f.dial(t, 600*time.Millisecond)
	var calls sync.WaitGroup
	for range 16 {
		calls.Go(func() { _, _ = invoke(t.Context(), cc, submitTask, "") })
	}
	calls.Wait()
	hangs.Store(false)
	if _, err := invoke(t.Context(), cc, submitTask, ""); err != nil {
		t.Error(err)
	}
}

// A long stream moves after a while, as it does when a server stops, so that it finds new replicas; one that carries bytes is not cut off.
func TestLongStreamsMove(t *testing.T) {
	cfg := rpc.ServerConfig{MaxAge: 200 * time.Millisecond}
	f := newFleet(t, 1, cfg, saying)
	cc := f.dial(t, 0)
	bytes, _ := open(t, t.Context(), cc, runTask)
	f.add(t, cfg, saying)
	seen := map[string]bool{}
	for end := time.Now().Add(time.Minute); len(seen) < 2; {
		s, name := open(t, t.Context(), cc, watchTask)
		seen[name] = true
		err := s.RecvMsg(new(wrapperspb.StringValue))
		if f := fault.From(err); f == nil || f.Code != codes.Unavailable || f.Reason != fault.ReasonShuttingDown {
			t.Fatalf("it ended with %v", err)
		}
		if _, err := invoke(t.Context(), cc, submitTask, ""); err != nil {
			t.Fatalf("a call while connections end: %v", err)
		}
		if time.Now().After(end) {
			t.Fatalf("only %v were found", seen)
		}
	}
	if err := bytes.SendMsg(wrapperspb.String("x")); err != nil {
		t.Errorf("the stream of bytes was cut off: %v", err)
	}
}

// A paused process answers nothing and breaks nothing: what stands on it ends all the same, in less than 15 s.
func TestFrozenReplica(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 13 s")
	}
	f := newFleet(t, 1, rpc.ServerConfig{}, saying)
	freeze := proxied(t, f)
	cc := f.dial(t, 0)
	s, _ := open(t, t.Context(), cc, watchTask)
	freeze()
	began := time.Now()
	err := s.RecvMsg(new(wrapperspb.StringValue))
	if took := time.Since(began); fault.From(err).Code != codes.Unavailable || took > 15*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
}

// proxied puts a proxy before the first replica, that can be frozen.
func proxied(t *testing.T, f *fleet) (freeze func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	frozen := make(chan struct{})
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	pass := func(to, from net.Conn) {
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			select {
			case <-frozen:
				<-end
			default:
			}
			if err != nil {
				_ = to.Close()
				return
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", f.nodes[0].addr)
			if err != nil {
				return
			}
			go pass(c, s)
			go pass(s, c)
		}
	}()
	f.names.set(l.Addr().String())
	return sync.OnceFunc(func() { close(frozen) })
}

// A replica gets calls from the time that it is ready for the first time until it stops, whatever else it lacks meanwhile.
func TestReplicasAreChosenByHealth(t *testing.T) {
	f := newFleet(t, 1, rpc.ServerConfig{}, saying)
	late := &secured{}
	late.Server, late.stop = start(t, rpc.ServerConfig{Process: "node", Listen: "127.0.0.1:0", TLS: f.ca.Credentials("node")}, nodeService(saying("1"), standing("1")))
	f.names.set(f.nodes[0].addr, late.Addr().String())
	cc := f.dial(t, 0)
	for range 50 {
		if got, err := invoke(t.Context(), cc, getNode, ""); err != nil || got != "0" {
			t.Fatalf("one that is not ready yet: %q, %v", got, err)
		}
	}
	late.SetServing(true)
	spread(t, cc, "01")
	late.SetServing(false)
	f.nodes[0].SetServing(false)
	spread(t, cc, "01")
}

// A call at every replica is made once at each, and one that does not answer costs its own time alone.
func TestEveryReplicaIsCalledOnce(t *testing.T) {
	var hangs atomic.Bool
	f := newFleet(t, 3, rpc.ServerConfig{}, func(name string) unaryFunc {
		return func(ctx context.Context, in string) (string, error) {
			if name == "1" && hangs.Load() {
				<-ctx.Done()
				return "", ctx.Err() // an answer could be quicker than the caller's clock
			}
			return name, nil
		}
	})
	cc := f.dial(t, 0)
	spread(t, cc, "012")
	every := func() (string, error) {
		got := map[string]int{}
		err := rpc.Every(t.Context(), time.Second, func(ctx context.Context) error {
			name, err := invoke(ctx, cc, getNode, "")
			if err == nil {
				got[name]++
			}
			return err
		})
		return fmt.Sprint(got), err
	}
	for range 5 {
		if got, err := every(); err != nil || got != "map[0:1 1:1 2:1]" {
			t.Fatalf("%s, %v", got, err)
		}
	}
	hangs.Store(true)
	if got, err := every(); fault.From(err) == nil || fault.From(err).Code != codes.DeadlineExceeded || got != "map[0:1 2:1]" {
		t.Errorf("with one that hangs: %s, %v", got, err)
	}
}

// On one machine there is one.
func TestEveryIsOneOnASocket(t *testing.T) {
	calls := 0
	if err := rpc.Every(t.Context(), time.Second, func(context.Context) error { calls++; return nil }); err != nil || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}
