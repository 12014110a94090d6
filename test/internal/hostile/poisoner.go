package hostile

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

const kadProtocol = protocol.ID("/shallot/kad/1.0.0")

// Canaries are addresses at which nobody is, of every kind that a stock host dials or looks up (RFC 5737, RFC 3849 and RFC 6761 keep them for such uses). Whoever goes to one of
// them has believed a peer.
func Canaries() []string {
	const relay = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
	return []string{
		"/ip4/192.0.2.77/tcp/4077", "/ip4/192.0.2.78/udp/4078/quic-v1", "/ip4/192.0.2.79/tcp/4079/ws",
		"/ip6/2001:db8::77/tcp/4077", "/ip6/2001:db8::78/udp/4078/quic-v1",
		"/dnsaddr/canary1.test", "/dns4/canary2.test/tcp/4077", "/dns6/canary3.test/udp/4078/quic-v1", "/dns/canary4.test/tcp/443/wss",
		"/ip4/192.0.2.80/tcp/4080/p2p/" + relay + "/p2p-circuit",
	}
}

// CanaryMarks are parts of text of which every canary has one, and nothing else has any.
func CanaryMarks() []string { return []string{"192.0.2.", "2001:db8::", "canary"} }

// Poisoner is a provider over onion services that says canaries wherever an address can be said: by identify, to who is pruned from its mesh, as the routing table's answer, and, where it
// is blunt, in announcements of its own and of peers that it makes up. It refuses tasks, and hangs up again and again, so that who wants it has to dial it.
type Poisoner struct {
	*Liar
	at        ma.Multiaddr // where it is
	blunt     bool
	socket    io.Closer // its onion service
	strangers []stranger

	mu     sync.Mutex
	served map[protocol.ID]int // streams that were opened to it
	hungUp atomic.Int64
}

// stranger is a peer that does not exist.
type stranger struct {
	id       peer.ID
	key      crypto.PrivKey
	envelope []byte // its signed record
}

// NewPoisoner makes one whose onion service is at that tor, and which says that it is such a provider. It returns when others can find it. socket is the path of its own. Close it.
func NewPoisoner(ctx context.Context, tor Tor, socket string, metric *eventv1.Metric, blunt bool) (*Poisoner, error) {
	key, public, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	raw, err := public.Raw()
	if err != nil {
		return nil, err
	}
	seed, err := key.Raw()
	if err != nil {
		return nil, err
	}
	at, said := OnionAddress(raw), canaries()
	h, err := libp2p.New(libp2p.Identity(key), libp2p.Transport(tor.Transport(socket)), libp2p.ListenAddrs(at), libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr {
		return append([]ma.Multiaddr{at}, said...)
	}), libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.DisableRelay(), libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.WithDialTimeout(publishTime), libp2p.DisableMetrics())
	if err != nil {
		return nil, err
	}
	p := &Poisoner{Liar: &Liar{Peer: &Peer{ID: h.ID().String(), host: h, key: key}, Metric: metric, Refuse: "QUEUE_FULL", Every: time.Minute, streams: map[peer.ID]network.Stream{}},
		at: at, blunt: blunt, served: map[protocol.ID]int{}}
	if !blunt {
		p.Places = []string{at.String()}
	}
	p.version.Store(uint64(time.Now().UnixNano()))
	for range 3 {
		s, err := invent(said)
		if err != nil {
			return nil, errors.Join(err, h.Close())
		}
		p.strangers = append(p.strangers, s)
		if blunt {
			p.Others = append(p.Others, p.announce(s))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	if p.socket, err = tor.publish(ctx, seed[:ed25519.SeedSize], socket); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return p, nil
}

func canaries() (out []ma.Multiaddr) {
	for _, c := range Canaries() {
		out = append(out, ma.StringCast(c))
	}
	return out
}

// announced are those addresses that the form of an announcement has room for.
func announced(addrs []ma.Multiaddr) (out []string) {
	for _, a := range addrs {
		if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err != nil {
			out = append(out, a.String())
		}
	}
	return out
}

func invent(addrs []ma.Multiaddr) (s stranger, err error) {
	if s.key, _, err = crypto.GenerateEd25519Key(rand.Reader); err != nil {
		return s, err
	}
	if s.id, err = peer.IDFromPrivateKey(s.key); err != nil {
		return s, err
	}
	e, err := record.Seal(&peer.PeerRecord{PeerID: s.id, Addrs: addrs, Seq: 1}, s.key)
	if err != nil {
		return s, err
	}
	s.envelope, err = e.Marshal()
	return s, err
}

// announce is what a stranger says of itself.
func (p *Poisoner) announce(s stranger) *eventv1.Event {
	e := p.event(eventv1.EventType_EVENT_TYPE_ANNOUNCEMENT, &eventv1.Announcement{PeerId: s.id.String(), Version: p.version.Add(1), Role: "provider", SealingKey: Recipient,
		Addresses: announced(canaries()), Interval: durationpb.New(time.Minute), Capabilities: sums})
	sign(e, s.key, s.id.String())
	return gossiped(e)
}

// Address is where it is reached, with its id.
func (p *Poisoner) Address() string { return fmt.Sprintf("%s/p2p/%s", p.at, p.ID) }

// Strangers are the ids of the peers that it has made up.
func (p *Poisoner) Strangers() (ids []string) {
	for _, s := range p.strangers {
		ids = append(ids, s.id.String())
	}
	return ids
}

// Close ends it.
func (p *Poisoner) Close() error { return errors.Join(p.Peer.Close(), p.socket.Close()) }

// Run poisons the victims, multiaddrs that end in /p2p/ID, and whoever dials it, until ctx ends.
func (p *Poisoner) Run(ctx context.Context, victims ...string) error {
	handle := func(id protocol.ID, f func(network.Stream)) {
		p.host.SetStreamHandler(id, func(s network.Stream) {
			p.mu.Lock()
			p.served[id]++
			p.mu.Unlock()
			f(s)
		})
	}
	handle(eventProtocol, func(s network.Stream) { p.serve(ctx, s) })
	handle(gossipProtocol, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
	handle(kadProtocol, p.route)
	var all sync.WaitGroup
	defer all.Wait()
	for _, v := range victims {
		info, err := peer.AddrInfoFromString(v)
		if err != nil {
			return err
		}
		one := &Peer{ID: p.ID, host: p.host, key: p.key, victim: *info}
		all.Go(func() { one.insist(ctx, gossipProtocol, func(s network.Stream) error { return p.poison(ctx, s) }) })
	}
	return nil
}

// Served tells how many streams were opened to it, and how often it has hung up.
func (p *Poisoner) Served() (events, gossip, routing, hungUp int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.served[eventProtocol], p.served[gossipProtocol], p.served[kadProtocol], int(p.hungUp.Load())
}

// poison is one connection's worth.
func (p *Poisoner) poison(ctx context.Context, s network.Stream) error {
	victim := s.Conn().RemotePeer()
	if _, err := s.Write(subscribe(metricsTopic, announceTopic)); err != nil {
		return err
	}
	for range 4 {
		frames := publish(announceTopic, encode(gossiped(p.announcement())))
		for _, o := range p.Others {
			frames = append(frames, publish(announceTopic, encode(o))...)
		}
		frames = append(frames, publish(metricsTopic, encode(gossiped(p.idle(""))))...)
		if _, err := s.Write(append(frames, p.prune(announceTopic, metricsTopic)...)); err != nil {
			return err
		}
		p.tell(ctx, victim, p.announcement())
		p.Sent.Add(1)
		pause(ctx, time.Second)
	}
	p.hungUp.Add(1)
	return p.host.Network().ClosePeer(victim)
}

// prune is gossip's frame that throws a peer out of the mesh and names others in one's place.
func (p *Poisoner) prune(topics ...string) []byte {
	var control []byte
	for _, t := range topics {
		prune := field(nil, 1, []byte(t))
		for _, s := range p.strangers {
			prune = field(prune, 2, field(field(nil, 1, []byte(s.id)), 2, s.envelope))
		}
		control = field(control, 4, number(prune, 3, 5))
	}
	return delimited(field(nil, 3, control))
}

// route answers as the routing table does: whoever is asked for, the strangers know, and the poisoner has it.
func (p *Poisoner) route(s network.Stream) {
	defer func() { _ = s.Reset() }()
	for r := bufio.NewReader(s); ; {
		n, err := binary.ReadUvarint(r)
		if err != nil || n > 1<<16 {
			return
		}
		request := make([]byte, n)
		if _, err := io.ReadFull(r, request); err != nil {
			return
		}
		answer := request // type, key and the like are said again
		for _, at := range p.strangers {
			answer = field(answer, 8, routed(at.id))
			answer = field(answer, 9, routed(at.id))
		}
		answer = field(answer, 9, routed(p.host.ID()))
		if _, err := s.Write(append(protowire.AppendVarint(nil, uint64(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// routed is a peer as the routing table has it.
func routed(id peer.ID) []byte {
	b := field(nil, 1, []byte(id))
	for _, c := range canaries() {
		b = field(b, 2, c.Bytes())
	}
	return number(b, 3, 1) // connected
}
