package libp2p

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
)

// Sizes of gossipsub's queues, in messages, and of its frames.
const (
	outboundQueue = 128
	validateQueue = 256
	validators    = 2 // signatures are checked in these; a gossip flood gets two cores at most
	topicBuffer   = 256
	maxGossipRPC  = 4 * event.MaxGossipSize
	// Every message is said once on each link of the mesh that it has not come on, so a node hears it about gossipDegree times:
	// with the library's 6, an idle network of ten nodes spends a megabyte a minute and node on repetitions. Four reach everybody, and what is lost
	// on the way is made good by the lists of what there is, and by discovery's questions.
	gossipDegree = 4
	// A message is in the lists of three heartbeats, each of which goes to so many peers of each node: so everybody is told of it nine times by chance.
	// The library tells a quarter of all connected peers each time, which among 70 nodes was two fifths of what an idle broker did.
	gossipLists = 3
	messageID   = 20 // bytes of the hash; it is told to peers for every message
)

// wireTopic is a topic's name between nodes.
func wireTopic(name string) string { return "/shallot/" + name + "/1.0.0" }

var errNoGossip = fault.FailedPrecondition("NO_GOSSIP", "only the node's own persona gossips")

// gossip is gossipsub on one host.
type gossip struct {
	host   *Host
	pubsub *pubsub.PubSub
	// relayed bounds what is taken in to be handed on, from all peers together.
	relayed *rate.Limiter

	mu     sync.Mutex
	topics map[string]*pubsub.Topic
}

func newGossip(h *Host) (*gossip, error) {
	p := h.network.profile
	params := pubsub.DefaultGossipSubParams()
	params.HeartbeatInterval, params.HistoryLength, params.HistoryGossip = p.heartbeat, p.history, p.historyGossip
	params.IWantFollowupTime, params.GraftFloodThreshold, params.UnsubscribeBackoff = p.iwantFollowup, p.graftFlood, p.unsubBackoff
	params.ConnectionTimeout, params.FanoutTTL = p.gossipDial, p.fanoutTTL
	params.D, params.Dlo, params.Dhi, params.Dscore, params.Dout = gossipDegree, gossipDegree-1, 2*gossipDegree, gossipDegree-1, 1
	params.Dlazy, params.GossipFactor = gossipLists, 0
	params.MaxPendingConnections = 16
	var wire []string
	for _, t := range event.Topics() {
		wire = append(wire, wireTopic(t))
	}
	scores, thresholds := scoreParams(h.standing)
	ps, err := pubsub.NewGossipSub(h.ctx, h.guarded(),
		pubsub.WithGossipSubProtocols([]protocol.ID{GossipProtocol}, func(f pubsub.GossipSubFeature, id protocol.ID) bool {
			return id == GossipProtocol && f != pubsub.GossipSubFeaturePX && f != pubsub.GossipSubFeatureExtensions
		}),
		pubsub.WithGossipSubParams(params),
		// Who spoke first is nobody's business: what must be checked is signed inside.
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(func(m *pb.Message) string {
			sum := sha256.Sum256(m.GetData())
			return string(sum[:messageID])
		}),
		pubsub.WithSeenMessagesTTL(p.seenTTL),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(wire...), 2*len(wire))),
		pubsub.WithPeerExchange(false), pubsub.WithFloodPublish(false),
		pubsub.WithMaxMessageSize(maxGossipRPC),
		pubsub.WithRawTracer(lossTracer{lost: h.handlers.Lost}),
		pubsub.WithPeerOutboundQueueSize(outboundQueue), pubsub.WithValidateQueueSize(validateQueue), pubsub.WithValidateWorkers(validators),
		pubsub.WithPeerScore(scores, thresholds), pubsub.WithPeerScoreInspect(h.scored, scoreEvery),
		pubsub.WithAppSpecificRpcInspector(h.meter.inspect),
		pubsub.WithLogger(slog.New(slog.DiscardHandler)), pubsub.WithRPCLogger(slog.New(slog.DiscardHandler)), // they name peers
	)
	if err != nil {
		return nil, fmt.Errorf("start gossipsub: %w", err)
	}
	g := &gossip{host: h, pubsub: ps, relayed: limiter(relayedPerSecond, relayedBurst, h.network.cfg.GossipRate), topics: make(map[string]*pubsub.Topic)}
	for _, t := range event.Topics() {
		if err := ps.RegisterTopicValidator(wireTopic(t), g.validator(t), pubsub.WithValidatorInline(true)); err != nil {
			return nil, fmt.Errorf("start gossipsub: %w", err)
		}
	}
	return g, nil
}

// lossTracer counts what gossipsub drops because a queue is full.
type lossTracer struct {
	lost func(topic, why string)
}

func (t lossTracer) count(topic, why string) {
	for _, name := range event.Topics() {
		if topic == wireTopic(name) {
			t.lost(name, why)
		}
	}
}

// RejectMessage is called for everything that is not accepted.
func (t lossTracer) RejectMessage(m *pubsub.Message, reason string) {
	if reason == pubsub.RejectValidationQueueFull || reason == pubsub.RejectValidationThrottled {
		t.count(m.GetTopic(), "validation_full")
	}
}

// DropRPC is called when a peer does not take what is sent to it.
func (t lossTracer) DropRPC(rpc *pubsub.RPC, _ peer.ID) {
	for _, m := range rpc.GetPublish() {
		t.count(m.GetTopic(), "peer_full")
	}
}

// UndeliverableMessage is called when this node does not take what was accepted.
func (t lossTracer) UndeliverableMessage(m *pubsub.Message) { t.count(m.GetTopic(), "buffer_full") }

// The rest is not counted.
func (lossTracer) OnNewOutboundStream(peer.ID, protocol.ID)             {}
func (lossTracer) OnClosedOutboundStream(peer.ID)                       {}
func (lossTracer) Join(string)                                          {}
func (lossTracer) Leave(string)                                         {}
func (lossTracer) Graft(peer.ID, string)                                {}
func (lossTracer) Prune(peer.ID, string)                                {}
func (lossTracer) ValidateMessage(*pubsub.Message)                      {}
func (lossTracer) DeliverMessage(*pubsub.Message)                       {}
func (lossTracer) DuplicateMessage(*pubsub.Message)                     {}
func (lossTracer) ThrottlePeer(peer.ID)                                 {}
func (lossTracer) RecvRPC(*pubsub.RPC)                                  {}
func (lossTracer) SendRPC(*pubsub.RPC, peer.ID)                         {}
func (lossTracer) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}

func (g *gossip) validator(topic string) pubsub.ValidatorEx {
	return func(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		if from == g.host.host.ID() {
			return pubsub.ValidationAccept // checked by whoever published it
		}
		verdict, e := g.host.handlers.Validate(topic, g.host.texts.of(from), m.GetData())
		switch verdict {
		case app.VerdictAccept:
			if !g.relayed.Allow() {
				g.host.handlers.Lost(topic, "relay_full")
				return pubsub.ValidationIgnore
			}
			m.ValidatorData = e
			return pubsub.ValidationAccept
		case app.VerdictIgnore:
			return pubsub.ValidationIgnore
		}
		return pubsub.ValidationReject
	}
}

// topic joins in the sense of gossipsub: so much is needed to publish, and peers do not hear of it.
func (g *gossip) topic(name string) (*pubsub.Topic, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t, ok := g.topics[name]; ok {
		return t, nil
	}
	t, err := g.pubsub.Join(wireTopic(name))
	if err != nil {
		return nil, fmt.Errorf("join the topic %s: %w", name, err)
	}
	g.topics[name] = t
	return t, nil
}

// Join hears a topic until leave is called.
func (h *Host) Join(name string) (func(), error) {
	if h.gossip == nil {
		return nil, errNoGossip
	}
	t, err := h.gossip.topic(name)
	if err != nil {
		return nil, err
	}
	sub, err := t.Subscribe(pubsub.WithBufferSize(topicBuffer))
	if err != nil {
		return nil, fmt.Errorf("subscribe to the topic %s: %w", name, err)
	}
	h.wg.Go(func() {
		for {
			m, err := sub.Next(h.ctx)
			if err != nil {
				return
			}
			if e, ok := m.ValidatorData.(*event.Event); ok { // own messages have none
				h.handlers.Gossip(name, h.texts.of(m.ReceivedFrom), e)
			}
		}
	})
	return sub.Cancel, nil
}

// Publish gossips bytes that follow the rules.
func (h *Host) Publish(ctx context.Context, name string, data []byte) error {
	if h.gossip == nil {
		return errNoGossip
	}
	t, err := h.gossip.topic(name)
	if err != nil {
		return err
	}
	err = t.Publish(ctx, data)
	var dup pubsub.ValidationError
	if errors.As(err, &dup) && dup.Reason == pubsub.RejectValidationIgnored {
		return nil // the same bytes were published a moment ago
	}
	return err
}
