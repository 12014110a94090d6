// Package linkage judges whether tasks of different personas can be told to be of one consumer. Eyes are what colluding providers see: all that their services
// and their brokers say to each other, and who is connected when. From it features of tasks are taken, and pairs of tasks are judged by them.
package linkage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/home"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// What a provider sees.
const (
	Connected    = "connected"
	Disconnected = "disconnected"
	Listed       = "listed" // among the connected peers, with what the broker knows of it
	Heard        = "heard"  // an event came from it
	Said         = "said"   // an event goes to it
	Answered     = "answered"
	Fetched      = "fetched" // content was asked for at it
)

// Sight is something that a provider has seen of a peer.
type Sight struct {
	At       time.Time
	Provider int
	Peer     string
	What     string
	Event    *eventv1.Event          // Heard and Said; Answered: what it is the answer to
	Fault    *eventv1.Fault          // Answered, where it did not take the event
	Took     time.Duration           // Answered
	Listed   *brokerv1.ConnectedPeer // Listed
	CID      string                  // Fetched
}

// question is an event that a peer has not acknowledged yet.
type question struct {
	at    time.Time
	peer  string
	event *eventv1.Event
}

// maxSights bounds the memory of a long run.
const maxSights = 1 << 20

// Eyes look on at providers.
type Eyes struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
	proxies []*proxy

	mu     sync.Mutex
	sights []Sight
	heard  map[string]bool // a delivery may be repeated
	failed []error
}

// Open puts eyes between the services of nodes and their brokers. The nodes must not run yet: each gets a configuration by which its services call the
// proxy in the broker's place. sockets is a folder with a short path. Close them.
func Open(ctx context.Context, sockets string, homes []string) (*Eyes, error) {
	ctx, cancel := context.WithCancel(ctx)
	e := &Eyes{cancel: cancel, heard: map[string]bool{}}
	for i, dir := range homes {
		if err := e.open(ctx, i, filepath.Join(sockets, fmt.Sprintf("eye-%d.sock", i+1)), dir); err != nil {
			e.Close()
			return nil, err
		}
	}
	return e, nil
}

// services are those that call the broker.
var services = []string{"discovery", "metric", "task", "node"}

func (e *Eyes) open(ctx context.Context, provider int, socket, dir string) error {
	h, err := home.Open(dir)
	if err != nil {
		return err
	}
	var config strings.Builder
	for _, s := range services {
		fmt.Fprintf(&config, "%s:\n  broker: unix:%s\n", s, socket)
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "config.yaml"), []byte(config.String()), 0o600); err != nil {
		return err
	}
	p, err := startProxy(socket, h.Endpoint("broker"), func(c *call, toBroker bool, b []byte) {
		if err := e.look(provider, c, toBroker, b); err != nil {
			e.fail(err)
		}
	})
	if err != nil {
		return err
	}
	e.proxies = append(e.proxies, p)
	network := brokerv1.NewNetworkServiceClient(p.broker)
	e.running.Go(func() { e.watch(ctx, provider, network) })
	e.running.Go(func() { e.list(ctx, provider, network) })
	return nil
}

// Close stops the proxies: the nodes must not run any more, or they have no broker.
func (e *Eyes) Close() {
	e.cancel()
	e.running.Wait()
	for _, p := range e.proxies {
		p.close()
	}
}

// Sights are all so far, in the order of time.
func (e *Eyes) Sights() ([]Sight, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := slices.Clone(e.sights)
	slices.SortStableFunc(out, func(a, b Sight) int { return a.At.Compare(b.At) })
	return out, errors.Join(e.failed...)
}

func (e *Eyes) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.failed) < 10 {
		e.failed = append(e.failed, err)
	}
}

func (e *Eyes) see(s Sight) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case len(e.sights) < maxSights:
		e.sights = append(e.sights, s)
	case len(e.sights) == maxSights && len(e.failed) == 0:
		e.failed = append(e.failed, fmt.Errorf("more than %d things were seen", maxSights))
	}
}

// look decodes what is of interest. The messages of one direction of a call come in order.
func (e *Eyes) look(provider int, c *call, toBroker bool, b []byte) error {
	now := time.Now()
	switch {
	case c.method == brokerv1.EventService_Subscribe_FullMethodName && !toBroker:
		var r brokerv1.SubscribeResponse
		if err := proto.Unmarshal(b, &r); err != nil {
			return err
		}
		if d := r.GetDelivery(); d != nil && d.GetTopic() == "" && e.first(provider, d) {
			e.see(Sight{At: now, Provider: provider, Peer: d.GetFromPeer(), What: Heard, Event: d.GetEvent()})
		}
	case c.method == brokerv1.EventService_Send_FullMethodName && toBroker:
		var r brokerv1.SendRequest
		if err := proto.Unmarshal(b, &r); err != nil {
			return err
		}
		e.mu.Lock()
		c.asked[r.GetSeq()] = question{now, r.GetPeerId(), r.GetEvent()}
		e.mu.Unlock()
		e.see(Sight{At: now, Provider: provider, Peer: r.GetPeerId(), What: Said, Event: r.GetEvent()})
	case c.method == brokerv1.EventService_Send_FullMethodName:
		var r brokerv1.SendResponse
		if err := proto.Unmarshal(b, &r); err != nil {
			return err
		}
		e.mu.Lock()
		q, ok := c.asked[r.GetSeq()]
		delete(c.asked, r.GetSeq())
		e.mu.Unlock()
		if ok {
			e.see(Sight{At: now, Provider: provider, Peer: q.peer, What: Answered, Event: q.event, Fault: r.GetFault(), Took: now.Sub(q.at)})
		}
	case c.method == brokerv1.RepositoryService_Get_FullMethodName && toBroker:
		var r brokerv1.GetRequest
		if err := proto.Unmarshal(b, &r); err != nil {
			return err
		}
		if from := r.GetFromPeers(); len(from) > 0 && !r.GetLocal() { // the first is whose content it is
			e.see(Sight{At: now, Provider: provider, Peer: from[0], What: Fetched, CID: r.GetCid()})
		}
	}
	return nil
}

// first tells whether a delivery is no repetition.
func (e *Eyes) first(provider int, d *brokerv1.Delivery) bool {
	key := fmt.Sprint(provider, d.GetFromPeer(), d.GetEvent().GetId())
	e.mu.Lock()
	defer e.mu.Unlock()
	again := e.heard[key]
	e.heard[key] = true
	return !again
}

// again is how long the broker is left alone when it does not answer, and between two lists of its peers.
const again = time.Second

// watch sees connections come and go, until ctx ends.
func (e *Eyes) watch(ctx context.Context, provider int, network brokerv1.NetworkServiceClient) {
	for pause(ctx) {
		stream, err := network.Watch(ctx, &brokerv1.WatchRequest{})
		if err != nil {
			continue
		}
		for {
			r, err := stream.Recv()
			if err != nil {
				break
			}
			what := Disconnected
			if r.GetConnected() {
				what = Connected
			}
			e.see(Sight{At: time.Now(), Provider: provider, Peer: r.GetPeerId(), What: what})
		}
	}
}

// list sees what the broker knows of those that are connected: of each the first that it says, and the last.
func (e *Eyes) list(ctx context.Context, provider int, network brokerv1.NetworkServiceClient) {
	for pause(ctx) {
		r, err := network.ListPeers(ctx, &brokerv1.ListPeersRequest{})
		for _, p := range r.GetPeers() {
			if err == nil {
				e.see(Sight{At: time.Now(), Provider: provider, Peer: p.GetPeerId(), What: Listed, Listed: p})
			}
		}
	}
}

func pause(ctx context.Context) bool {
	t := time.NewTimer(again)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
