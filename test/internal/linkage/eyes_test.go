package linkage

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/brokertest"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// behind returns a folder with a node's home, the eyes at it, what its services would call as their broker, and another node of the network.
func behind(t *testing.T) (eyes *Eyes, services *grpc.ClientConn, near, far *brokertest.Broker) {
	t.Helper()
	dir, err := os.MkdirTemp("", "eyes") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	node := filepath.Join(dir, "node")
	if eyes, err = Open(t.Context(), dir, []string{node}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eyes.Close)
	network := brokertest.NewNetwork()
	near, far = network.Add(), network.Add()
	h, err := home.Find(node)
	if err != nil {
		t.Fatal(err)
	}
	s, err := rpc.NewServer(rpc.ServerConfig{Process: "broker", Listen: h.Endpoint("broker")})
	if err != nil {
		t.Fatal(err)
	}
	near.Register(s)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	config, err := os.ReadFile(filepath.Join(node, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(config), "task:\n  broker: ")
	endpoint, _, _ := strings.Cut(rest, "\n")
	if services, err = grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { services.Close() })
	return eyes, services, near, far
}

// What services say to their broker and hear from it goes through unchanged, errors included, and is seen.
func TestEyesAreTransparent(t *testing.T) {
	eyes, conn, near, far := behind(t)
	network := brokerv1.NewNetworkServiceClient(conn)
	self, err := network.Self(t.Context(), &brokerv1.SelfRequest{})
	if err != nil || self.GetPeerId() != near.PeerID() {
		t.Fatalf("%v, %v", self, err)
	}
	if _, err := network.Connect(t.Context(), &brokerv1.ConnectRequest{Addresses: []string{"nowhere"}}); status.Code(err) == codes.OK || status.Code(err) == codes.Unknown || len(status.Convert(err).Details()) == 0 {
		t.Errorf("an error comes through as %v, with the details %v", err, status.Convert(err).Details())
	}
	if _, err := network.Connect(t.Context(), &brokerv1.ConnectRequest{Addresses: []string{far.JoinAddress()}}); err != nil {
		t.Fatal(err)
	}
	send, err := brokerv1.NewEventServiceClient(conn).Send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ev := &eventv1.Event{Id: strings.Repeat("ab", 16), Type: eventv1.EventType_EVENT_TYPE_PING}
	if err := send.Send(&brokerv1.SendRequest{Seq: 7, PeerId: far.PeerID(), Event: ev}); err != nil {
		t.Fatal(err)
	}
	if r, err := send.Recv(); err != nil || r.GetSeq() != 7 {
		t.Fatalf("%v, %v", r, err)
	}
	want := map[string]bool{Said: true, Answered: true, Connected: true, Listed: true}
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(want) > 0 {
		sights, err := eyes.Sights()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sights {
			if s.Peer == far.PeerID() && (s.Event == nil || proto.Equal(s.Event, ev)) {
				delete(want, s.What)
			}
		}
		select {
		case <-deadline.C:
			t.Fatalf("not seen: %v", want)
		case <-tick.C:
		}
	}
}
