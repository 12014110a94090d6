package libp2p

import (
	"errors"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
)

// The score is that of gossipsub v1.1 (libp2p specs, pubsub/gossipsub/gossipsub-v1.1.md, "Peer Scoring"):
//
//	score = min(cap, Σ topics 0.5·(w1·P1 + w2·P2 + w4·P4)) + w5·P5 + w7·P7
//
// P1, time in the mesh, and P2, messages that a peer was the first to bring, let those who serve well keep their place. Their most is maxMerit together,
// because a flood of sound messages earns it as well: nobody buys more than a few mistakes with it.
// P3, messages that a peer failed to bring, is left out: announcements are minutes apart by design, so that an honest link is as silent as a dead one.
// P4, messages that break the rules, counts with its square: three cost 9/2, ten cost 50, and half of the count is forgotten in four and a half minutes.
// P5 is what the broker holds against the peer on any protocol, point for point: who sends garbage elsewhere loses its place here before it is cut off.
// P6, peers that share an address, is left out: a machine, a NAT or a lab has many honest ones.
// P7, breaches of the mesh's manners (grafting again too soon, promising messages and not giving them), counts with its square beyond six: an
// honest peer that reconnects breaks a few.
//
// Below gossipScore a peer is told of no messages and asked for none, below publishScore it gets none of this node's own, below graylistScore nothing
// that it says is read; and it is cut off, where that is so without P5. The broker's own points have a limit of their own, and must not count twice.
const (
	gossipScore   = -20
	publishScore  = -40
	graylistScore = -80
	maxMerit      = 10
	scoreEvery    = time.Second
	scoreKept     = 10 * time.Minute // for a peer that has gone, so that leaving clears nothing
)

func scoreParams(standing func(peer.ID) float64) (*pubsub.PeerScoreParams, *pubsub.PeerScoreThresholds) {
	slow := pubsub.ScoreParameterDecay(30 * time.Minute) // to 0.01 of it; so half is gone after four and a half minutes
	topics := make(map[string]*pubsub.TopicScoreParams)
	for _, t := range event.Topics() {
		topics[wireTopic(t)] = &pubsub.TopicScoreParams{
			TopicWeight:      0.5,
			TimeInMeshWeight: 0.01, TimeInMeshQuantum: time.Second, TimeInMeshCap: 300,
			FirstMessageDeliveriesWeight: 0.1, FirstMessageDeliveriesDecay: slow, FirstMessageDeliveriesCap: 70,
			InvalidMessageDeliveriesWeight: -1, InvalidMessageDeliveriesDecay: slow,
			SkipAtomicValidation: true,
		}
	}
	return &pubsub.PeerScoreParams{
			Topics: topics, TopicScoreCap: maxMerit,
			AppSpecificScore: standing, AppSpecificWeight: 1,
			BehaviourPenaltyWeight: -1, BehaviourPenaltyThreshold: 6, BehaviourPenaltyDecay: slow,
			DecayInterval: scoreEvery, DecayToZero: 0.01, RetainScore: scoreKept,
		}, &pubsub.PeerScoreThresholds{
			GossipThreshold: gossipScore, PublishThreshold: publishScore, GraylistThreshold: graylistScore,
			AcceptPXThreshold: 0, OpportunisticGraftThreshold: 1, // no peers are exchanged; a mesh whose median is below 1 looks for better
		}
}

// standing is P5.
func (h *Host) standing(p peer.ID) float64 {
	if h.handlers.Standing == nil {
		return 0
	}
	return -h.handlers.Standing(h.texts.of(p))
}

// scored is told all scores now and then. Those of peers that have gone are among them, and are nobody's concern now.
func (h *Host) scored(scores map[peer.ID]float64) {
	for p, s := range scores {
		if s-h.standing(p) < graylistScore && h.host.Network().Connectedness(p) == network.Connected {
			h.meter.say(p, app.LowGossipScore)
		}
	}
}

// What gossip a peer may send in a second, in messages and bytes, control messages included: an idle network of any size says one announcement and one
// metric a second, each about gossipDegree times, and 130 nodes that start together say 260 at once.
//
// A peer that is faster is not heard for a moment, and nothing is held against it: it may hand on honestly what others flood it with. But every
// node hands on relayedPerSecond at most, from all its peers together. So a peer that sends more than twice that takes part in the flood.
const (
	gossipPerSecond  = 100
	gossipBurst      = 500
	gossipBytes      = 2 << 20
	gossipBytesBurst = 8 << 20
	relayedPerSecond = 250
	relayedBurst     = 1000
	grossPerSecond   = 2*relayedPerSecond + gossipPerSecond
	grossBurst       = 2 * relayedBurst
	grossBytes       = 2 * gossipBytes
	grossBytesBurst  = 2 * gossipBytesBurst
	controlSize      = 64 // bytes that an entry of a control message counts as
	entriesAMessage  = 16 // it is looked up; a message is checked and handed on
)

type gossipMeters struct{ messages, bytes, gross, grossBytes *rate.Limiter }

// newGossipMeters makes those of a peer that may send perSecond messages; everything else is in proportion.
func newGossipMeters(perSecond int) gossipMeters {
	return gossipMeters{
		messages: limiter(gossipPerSecond, gossipBurst, perSecond), bytes: limiter(gossipBytes, gossipBytesBurst, perSecond),
		gross: limiter(grossPerSecond, grossBurst, perSecond), grossBytes: limiter(grossBytes, grossBytesBurst, perSecond),
	}
}

// limiter has a rate and a burst that are stated for gossipPerSecond, where that is perSecond.
func limiter(each, burst, perSecond int) *rate.Limiter {
	if perSecond <= 0 {
		perSecond = gossipPerSecond
	}
	k := float64(perSecond) / gossipPerSecond
	return rate.NewLimiter(rate.Limit(float64(each)*k), max(1, int(float64(burst)*k)))
}

var errTooMuch = errors.New("more gossip than a peer may send")

// inspect is asked before anything of a frame is looked at: it is what makes a flood cheap.
func (m *meter) inspect(p peer.ID, rpc *pubsub.RPC) error {
	messages, size := weigh(rpc)
	m.mu.Lock()
	defer m.mu.Unlock()
	x, now := m.of(p), time.Now()
	// Both are asked, so that who hides small messages behind large ones pays for either.
	if fits, few := x.gossip.grossBytes.AllowN(now, min(size, x.gossip.grossBytes.Burst())), x.gossip.gross.AllowN(now, min(messages, x.gossip.gross.Burst())); !fits || !few {
		m.flooded(p, x, now)
	}
	if fits, few := x.gossip.bytes.AllowN(now, min(size, x.gossip.bytes.Burst())), x.gossip.messages.AllowN(now, min(messages, x.gossip.messages.Burst())); !fits || !few {
		return errTooMuch
	}
	return nil
}

// weigh counts messages and bytes. A frame is a message at least, and so are entriesAMessage entries of control messages.
func weigh(rpc *pubsub.RPC) (messages, size int) {
	messages = max(1, len(rpc.GetPublish()))
	entries := len(rpc.GetSubscriptions())
	for _, m := range rpc.GetPublish() {
		size += len(m.GetData())
	}
	if c := rpc.GetControl(); c != nil {
		entries += len(c.GetGraft()) + len(c.GetPrune())
		for _, i := range c.GetIhave() {
			entries += 1 + len(i.GetMessageIDs())
		}
		for _, i := range c.GetIwant() {
			entries += 1 + len(i.GetMessageIDs())
		}
		for _, i := range c.GetIdontwant() {
			entries += 1 + len(i.GetMessageIDs())
		}
	}
	return messages + entries/entriesAMessage, size + controlSize*(1+entries)
}
