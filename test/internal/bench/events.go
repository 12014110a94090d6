package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/test/internal/floor"
	"github.com/shallot-net/shallot/test/internal/measure"
)

const (
	eventSize  = 256
	publishers = 8 // side by side, as a service's callers are
)

// events is from service to service across two brokers: this program is the service at both ends.
func (s *session) events(ctx context.Context) (figures []Figure, err error) {
	a, err := s.broker(ctx, "events-a")
	if err != nil {
		return nil, err
	}
	defer a.kill()
	b, err := s.broker(ctx, "events-b")
	if err != nil {
		return nil, err
	}
	defer b.kill()
	info, err := b.network.Self(ctx, &brokerv1.SelfRequest{})
	if err != nil {
		return nil, err
	}
	if _, err := a.network.Connect(ctx, &brokerv1.ConnectRequest{PeerId: info.GetPeerId(), Addresses: info.GetAddresses()}); err != nil {
		return nil, err
	}
	bare, err := floor.StartEvents(eventSize, inFlight)
	if err != nil {
		return nil, err
	}
	defer bare.Stop()
	directed, err := s.directed(ctx, a, b, info.GetPeerId(), bare)
	if err != nil {
		return nil, fmt.Errorf("directed: %w", err)
	}
	gossip, err := s.gossip(ctx, a, b, bare)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	return append(directed, gossip...), nil
}

// aBroker is a broker without the services around it.
type aBroker struct {
	cmd     *exec.Cmd
	conn    *grpc.ClientConn
	events  brokerv1.EventServiceClient
	network brokerv1.NetworkServiceClient
}

func (s *session) broker(ctx context.Context, name string) (b *aBroker, err error) {
	dir := filepath.Join(s.dir, name)
	h, err := home.Open(dir)
	if err != nil {
		return nil, err
	}
	b = &aBroker{cmd: exec.Command(filepath.Join(s.Bin, "shallot-broker"), "--home", dir, "--log.level", "error",
		"--limits.peer_rate", "1000000", "--limits.peer_byte_rate", "1GiB", "--limits.gossip_rate", "1000000")} // the way is measured, not the rates that peers are held to
	b.cmd.Stderr = os.Stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.kill()
		}
	}()
	if b.conn, err = rpc.Dial(h.Endpoint("broker"), rpc.ClientConfig{}); err != nil {
		return nil, err
	}
	b.events, b.network = brokerv1.NewEventServiceClient(b.conn), brokerv1.NewNetworkServiceClient(b.conn)
	start, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = wait(start, func() (bool, error) {
		r, err := grpc_health_v1.NewHealthClient(b.conn).Check(start, &grpc_health_v1.HealthCheckRequest{})
		return err == nil && r.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING, start.Err()
	})
	return b, err
}

func (b *aBroker) kill() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	if b.conn != nil {
		b.conn.Close()
	}
}

// subscribe calls heard for every delivery, after its acknowledgement is on its way, until ctx ends.
func (b *aBroker) subscribe(ctx context.Context, open *brokerv1.Open, heard func()) error {
	sub, err := b.events.Subscribe(ctx)
	if err != nil {
		return err
	}
	if err := sub.Send(&brokerv1.SubscribeRequest{Request: &brokerv1.SubscribeRequest_Open{Open: open}}); err != nil {
		return err
	}
	if _, err := sub.Recv(); err != nil {
		return err
	}
	go func() {
		for {
			r, err := sub.Recv()
			if err != nil {
				return
			}
			if sub.Send(&brokerv1.SubscribeRequest{Request: &brokerv1.SubscribeRequest_Ack{Ack: &brokerv1.Ack{DeliveryId: r.GetDelivery().GetDeliveryId()}}}) != nil {
				return
			}
			heard()
		}
	}()
	return nil
}

func newEventID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// directed sends events that the service at the other end acknowledges, so many in flight.
func (s *session) directed(ctx context.Context, a, b *aBroker, peer string, bare *floor.Events) ([]Figure, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := b.subscribe(ctx, &brokerv1.Open{Group: "bench", Types: []eventv1.EventType{eventv1.EventType_EVENT_TYPE_TASK_LOG}, MaxInFlight: 4 * inFlight}, func() {}); err != nil {
		return nil, err
	}
	stream, err := a.events.Send(ctx)
	if err != nil {
		return nil, err
	}
	payload, err := proto.Marshal(&eventv1.TaskLog{TaskId: newEventID(), Attempt: 1, Data: make([]byte, eventSize-40)})
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	waiting := map[uint64]chan *brokerv1.SendResponse{}
	next := uint64(0)
	go func() {
		for {
			r, err := stream.Recv()
			mu.Lock()
			if err != nil {
				for _, w := range waiting {
					close(w)
				}
				waiting = nil
				mu.Unlock()
				return
			}
			w := waiting[r.GetSeq()]
			delete(waiting, r.GetSeq())
			mu.Unlock()
			w <- r
		}
	}()
	send := func() error {
		w := make(chan *brokerv1.SendResponse, 1)
		mu.Lock()
		if waiting == nil {
			mu.Unlock()
			return errors.New("the stream has ended")
		}
		next++
		waiting[next] = w
		err := stream.Send(&brokerv1.SendRequest{Seq: next, PeerId: peer, Event: &eventv1.Event{Id: newEventID(), Type: eventv1.EventType_EVENT_TYPE_TASK_LOG, Payload: payload}})
		mu.Unlock()
		if err != nil {
			return err
		}
		r, ok := <-w
		if !ok || r.GetFault() != nil {
			return fmt.Errorf("an event was not delivered: %v", r.GetFault())
		}
		return nil
	}
	slots := make(chan int, inFlight)
	for i := range inFlight {
		slots <- i
	}
	echo := func() error {
		i := <-slots
		defer func() { slots <- i }()
		return bare.Echo(i, make([]byte, eventSize))
	}
	var ours, floored burst
	none := func() (map[string]time.Duration, error) { return nil, nil }
	for range s.or(4, 1) + 1 {
		ours, floored, err = again(ours, floored, s.or(20_000, 500), none, send, echo)
		if err != nil {
			return nil, err
		}
	}
	f := Figure{Name: fmt.Sprintf("directed events of %d B, acknowledged, %d in flight", eventSize, inFlight), Unit: "/s", Ours: ours.rate(),
		Detail: map[string]float64{"p50, ms": milliseconds(measure.Quantile(ours.each, 0.5)), "p99, ms": milliseconds(measure.Quantile(ours.each, 0.99))}}
	f = f.beside(floored.rate(), "bare libp2p echo")
	return []Figure{f.atLeast(0.2*f.Floor, "≥ 0.2 × echo")}, nil
}

// again adds a round of each; the first one of all only warms up.
func again(ours, floored burst, n int, cpu func() (map[string]time.Duration, error), our, theirs func() error) (burst, burst, error) {
	warm := ours.cpu == nil
	if err := floored.add(n, cpu, theirs); err != nil {
		return ours, floored, err
	}
	if err := ours.add(n, cpu, our); err != nil {
		return ours, floored, err
	}
	if warm {
		ours, floored = burst{cpu: map[string]time.Duration{}}, burst{cpu: map[string]time.Duration{}}
	}
	return ours, floored, nil
}

// gossip publishes metrics, signed, at one broker, and counts what the service at the other one hears.
func (s *session) gossip(ctx context.Context, a, b *aBroker, bare *floor.Events) ([]Figure, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var heard atomic.Int64
	if err := b.subscribe(ctx, &brokerv1.Open{Group: "bench", Topics: []string{"metrics"}, MaxInFlight: 4 * inFlight}, func() { heard.Add(1) }); err != nil {
		return nil, err
	}
	if err := a.subscribe(ctx, &brokerv1.Open{Group: "bench", Topics: []string{"metrics"}, MaxInFlight: 4 * inFlight}, func() {}); err != nil {
		return nil, err
	}
	self, err := a.network.Self(ctx, &brokerv1.SelfRequest{})
	if err != nil {
		return nil, err
	}
	var version atomic.Uint64
	version.Store(uint64(time.Now().UnixMicro()))
	ours := func() error {
		m := &eventv1.MetricAvailable{Metric: &eventv1.Metric{PeerId: self.GetPeerId(), Version: version.Add(1), Interval: durationpb.New(time.Minute), Cpu: &eventv1.Cpu{}, Queue: &eventv1.Queue{}}}
		payload, err := proto.Marshal(m)
		if err == nil && len(payload) < eventSize { // padded: as large as the floor's messages
			m.Metric.Cpu.Model = string(make([]byte, eventSize-len(payload)))
			payload, err = proto.Marshal(m)
		}
		if err != nil {
			return err
		}
		_, err = a.events.Publish(ctx, &brokerv1.PublishRequest{Topic: "metrics", Sign: true, Event: &eventv1.Event{Id: newEventID(), Type: eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, Payload: payload}})
		return err
	}
	theirs := func() error {
		m := make([]byte, eventSize)
		_, _ = rand.Read(m[:16])
		return bare.Publish(ctx, m)
	}
	var rates, floors []float64
	var lost int64
	for range s.or(5, 1) {
		r, l, err := flood(ctx, s.or(5000, 200), theirs, bare.Seen)
		if err != nil {
			return nil, err
		}
		floors = append(floors, r)
		lost += l
		if r, l, err = flood(ctx, s.or(5000, 200), ours, heard.Load); err != nil {
			return nil, err
		}
		rates, lost = append(rates, r), lost+l
	}
	f := Figure{Name: fmt.Sprintf("gossip of %d B through the sidecars, %d not yet heard", eventSize, inFlight), Unit: "/s", Ours: median(rates), Detail: map[string]float64{"lost": float64(lost)}}
	f = f.beside(median(floors), "bare gossipsub")
	return []Figure{f.atLeast(0.5*f.Floor, "≥ 0.5 × bare")}, nil
}

// flood publishes n messages from as many callers as may not yet be heard, and returns how many a second were heard, and how many never
// were.
func flood(ctx context.Context, n int, publish func() error, heard func() int64) (rate float64, lost int64, err error) {
	base, begin := heard(), time.Now()
	var sent, given atomic.Int64
	_, err = measure.InFlight(n, publishers, func() error {
		for stuck := time.Now(); sent.Load()-(heard()-base)-given.Load() >= inFlight; {
			if time.Since(stuck) > 3*time.Second { // what is lost does not come any more
				given.Store(sent.Load() - (heard() - base))
			}
			select {
			case <-time.After(20 * time.Microsecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		sent.Add(1)
		return publish()
	})
	if err != nil {
		return 0, 0, err
	}
	end, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	took := time.Since(begin)
	_ = wait(end, func() (bool, error) {
		if heard()-base < int64(n) {
			return false, nil
		}
		took = time.Since(begin)
		return true, nil
	})
	lost = int64(n) - (heard() - base)
	return float64(int64(n)-lost) / took.Seconds(), lost, ctx.Err()
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
