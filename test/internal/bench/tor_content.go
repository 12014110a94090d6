package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/brokerclient"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/measure"
)

const (
	torLarge  = 16 << 20
	torSmall  = 4 << 10
	torTrips  = 5                // of each kind, for each persona
	torFetch  = 15 * time.Minute // of one persona
	torPinner = "bench:tor"
	// torPatience is how long an event may take: what is slow is to be measured.
	torPatience = 2 * time.Minute
)

// torContent measures what a persona fetches from a provider by its CID over a private Tor network: each persona has circuits of its own, and beside it are as many raw circuits to the same
// provider's tor, in the same minutes.
func (s *session) torContent(ctx context.Context) (figures []Figure, err error) {
	dir := filepath.Join(s.dir, "tor-content")
	n, err := dev.Start(ctx, dev.Config{Bin: s.Bin, Dir: dir, Providers: 1, Consumers: 1, Args: []string{"--anonymous", "--tor-relays", torRelays}, Timeout: torStart})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Stop()) }()
	source, err := newOnionService(ctx, dir, giveBytes)
	if err != nil {
		return nil, err
	}
	defer source.close()
	m := &contentMeter{source: source}
	if err := m.connect(ctx, n); err != nil {
		return nil, errors.Join(err, m.close())
	}
	defer func() { err = errors.Join(err, m.close()) }()
	for i := range s.or(torCircuits, 1) {
		if err := m.persona(ctx, fmt.Sprintf("bench-%d", i)); err != nil {
			err = fmt.Errorf("after %d personas: %w", i, err)
			if len(m.large) == 0 {
				return nil, err
			}
			return m.figures(), err
		}
	}
	return m.figures(), nil
}

// giveBytes answers each number, 8 bytes, with as many bytes.
func giveBytes(c net.Conn) {
	noise := make([]byte, 64<<10)
	_, _ = rand.Read(noise)
	var want [8]byte
	for {
		if _, err := io.ReadFull(c, want[:]); err != nil {
			return
		}
		for left := binary.BigEndian.Uint64(want[:]); left > 0; {
			k, err := c.Write(noise[:min(left, uint64(len(noise)))])
			if err != nil {
				return
			}
			left -= uint64(k)
		}
	}
}

// askBytes times one such answer.
func askBytes(c net.Conn, n int64) (time.Duration, error) {
	begin := time.Now()
	if _, err := c.Write(binary.BigEndian.AppendUint64(nil, uint64(n))); err != nil {
		return 0, err
	}
	_, err := io.CopyN(io.Discard, c, n)
	return time.Since(begin), err
}

// contentMeter drives the two brokers, in the place of their services.
type contentMeter struct {
	source                                  *onionEcho
	conns                                   []*grpc.ClientConn
	at                                      []string // the provider's addresses
	provider                                string
	theirs, ours                            brokerv1.RepositoryServiceClient
	network                                 brokerv1.NetworkServiceClient
	events                                  brokerv1.EventServiceClient
	rawLarge, large, rawSmall, small, first []time.Duration
	idle, busy                              []time.Duration
}

func (m *contentMeter) connect(ctx context.Context, n *dev.Network) error {
	var conns [2]*grpc.ClientConn
	for i, node := range []string{"provider-1", torConsumer} {
		h, err := home.Find(n.Home(node))
		if err != nil {
			return err
		}
		if conns[i], err = rpc.Dial(h.Endpoint("broker"), rpc.ClientConfig{}); err != nil {
			return err
		}
		m.conns = append(m.conns, conns[i])
	}
	m.theirs, m.ours = brokerv1.NewRepositoryServiceClient(conns[0]), brokerv1.NewRepositoryServiceClient(conns[1])
	m.network, m.events = brokerv1.NewNetworkServiceClient(conns[1]), brokerv1.NewEventServiceClient(conns[1])
	self, err := brokerv1.NewNetworkServiceClient(conns[0]).Self(ctx, &brokerv1.SelfRequest{})
	if err != nil {
		return err
	}
	m.provider = self.GetPeerId()
	for _, a := range self.GetAddresses() {
		m.at = append(m.at, a+"/p2p/"+m.provider)
	}
	return nil
}

func (m *contentMeter) close() (err error) {
	for _, c := range m.conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

// persona measures everything once, by one persona's circuits and as many raw ones.
func (m *contentMeter) persona(ctx context.Context, name string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, torFetch)
	defer cancel()
	opened, err := m.network.OpenPersona(ctx, &brokerv1.OpenPersonaRequest{Persona: name})
	if err != nil {
		return err
	}
	defer func() {
		_, cerr := m.network.ClosePersona(ctx, &brokerv1.ClosePersonaRequest{Persona: name})
		err = errors.Join(err, cerr)
	}()
	if _, err := m.network.Connect(ctx, &brokerv1.ConnectRequest{Persona: name, Addresses: m.at}); err != nil {
		return fmt.Errorf("connect to the provider: %w", err)
	}
	reader := opened.GetPersona().GetPeerId()
	fetch := func(size int) (time.Duration, error) { return m.fetch(ctx, name, reader, size) }
	took, err := fetch(torSmall) // by a lane that has to be opened
	if err != nil {
		return err
	}
	m.first = append(m.first, took)
	raw, err := m.source.dial(ctx, torConsumer)
	if err != nil {
		return err
	}
	defer raw.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	for range torTrips {
		for _, one := range []struct {
			took *[]time.Duration
			do   func() (time.Duration, error)
		}{
			{&m.rawSmall, func() (time.Duration, error) { return askBytes(raw, torSmall) }},
			{&m.small, func() (time.Duration, error) { return fetch(torSmall) }},
			{&m.idle, func() (time.Duration, error) { return m.ping(ctx, name) }},
		} {
			took, err := one.do()
			if err != nil {
				return err
			}
			*one.took = append(*one.took, took)
		}
	}
	if took, err = askBytes(raw, torLarge); err != nil {
		return err
	}
	m.rawLarge = append(m.rawLarge, took)
	return m.whilePinged(ctx, name, func() error {
		took, err := fetch(torLarge)
		m.large = append(m.large, took)
		return err
	})
}

// whilePinged does something while the provider is pinged on the connection of events.
func (m *contentMeter) whilePinged(ctx context.Context, name string, do func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		took []time.Duration
		err  error
	}
	pinged := make(chan outcome, 1)
	over := make(chan struct{})
	go func() {
		var o outcome
		for o.err == nil {
			select {
			case <-over:
				pinged <- o
				return
			default:
			}
			var took time.Duration
			if took, o.err = m.ping(ctx, name); o.err == nil {
				o.took = append(o.took, took)
			}
		}
		pinged <- o
	}()
	err := do()
	close(over)
	o := <-pinged
	m.busy = append(m.busy, o.took...)
	return errors.Join(err, o.err)
}

// ping times an event from its way to the provider's service to the acknowledgement.
func (m *contentMeter) ping(ctx context.Context, persona string) (time.Duration, error) {
	e, err := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_PING, &eventv1.Ping{})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := m.events.Send(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := stream.Send(&brokerv1.SendRequest{Seq: 1, Persona: persona, PeerId: m.provider, Event: e, Timeout: durationpb.New(torPatience)}); err != nil {
		return 0, err
	}
	r, err := stream.Recv()
	if err != nil {
		return 0, err
	}
	if f := r.GetFault(); f != nil {
		return 0, fmt.Errorf("a ping: %s", f.GetReason())
	}
	return time.Since(begin), nil
}

// fetch puts content at the provider for one reader, and times how the reader fetches it.
func (m *contentMeter) fetch(ctx context.Context, persona, reader string, size int) (time.Duration, error) {
	data := make([]byte, size)
	_, _ = rand.Read(data)
	put, err := m.theirs.Put(ctx)
	if err != nil {
		return 0, err
	}
	_ = put.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Options{Options: &brokerv1.PutOptions{Pin: &brokerv1.PinOptions{Owner: torPinner, Readers: []string{reader}}}}})
	for rest := data; len(rest) > 0; {
		k := min(len(rest), 1<<20)
		_ = put.Send(&brokerv1.PutRequest{Request: &brokerv1.PutRequest_Data{Data: rest[:k]}}) // what went wrong, the answer says
		rest = rest[k:]
	}
	made, err := put.CloseAndRecv()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	stream, err := m.ours.Get(ctx, &brokerv1.GetRequest{Persona: persona, Cid: made.GetCid(), FromPeers: []string{m.provider}})
	if err != nil {
		return 0, err
	}
	got := make([]byte, 0, size)
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("fetch %d bytes: %w", size, err)
		}
		got = append(got, r.GetData()...)
	}
	took := time.Since(begin)
	if !bytes.Equal(got, data) {
		return 0, fmt.Errorf("%d bytes of %d came, and others", len(got), size)
	}
	_, err = m.theirs.Unpin(ctx, &brokerv1.UnpinRequest{Cids: []string{made.GetCid()}, Owner: torPinner})
	return took, err
}

func (m *contentMeter) figures() []Figure {
	rate := func(d []time.Duration, q float64) float64 {
		return torLarge / (1 << 20) / measure.Quantile(d, q).Seconds()
	}
	large := Figure{Name: "16 MiB result over Tor, p50", Unit: "MiB/s", Ours: rate(m.large, 0.5),
		Detail: map[string]float64{"slowest of 10, MiB/s": rate(m.large, 0.9), "floor, slowest of 10, MiB/s": rate(m.rawLarge, 0.9)}}.beside(rate(m.rawLarge, 0.5), "raw TCP, one onion circuit")
	idle := milliseconds(measure.Quantile(m.idle, 0.5))
	busy := Figure{Name: "event while a result comes, p50", Unit: "ms", Ours: milliseconds(measure.Quantile(m.busy, 0.5)),
		Detail: map[string]float64{"p90, ms": milliseconds(measure.Quantile(m.busy, 0.9)), "idle p90, ms": milliseconds(measure.Quantile(m.idle, 0.9))}}.beside(idle, "the same, idle")
	trip := milliseconds(measure.Quantile(m.rawSmall, 0.5))
	small := Figure{Name: "4 KiB content by CID over Tor, p50", Unit: "ms", Ours: milliseconds(measure.Quantile(m.small, 0.5)),
		Detail: map[string]float64{"p90, ms": milliseconds(measure.Quantile(m.small, 0.9)), "floor p90, ms": milliseconds(measure.Quantile(m.rawSmall, 0.9)),
			"with the connection for it, p50, ms": milliseconds(measure.Quantile(m.first, 0.5))}}.beside(trip, "1 round trip")
	return []Figure{
		large.atLeast(1.5*large.Floor, "≥ 1.5 × one circuit"),
		busy.atMost(2*idle, "≤ 2 × idle"),
		small.atMost(1.2*trip, "≤ 1.2 × round trip"),
	}
}
