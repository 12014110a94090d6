package app

import (
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/conduct"
)

// Misconduct is what a host, or whoever shares it, has seen a peer do below the events that this package reads itself.
type Misconduct uint8

// Kinds of misconduct.
const (
	SentGarbage    Misconduct = iota + 1 // what does not decode, on a protocol that the host speaks
	Stalled                              // a frame that was begun and not ended in time
	Flooded                              // a second of grossly more than the rates allow
	LowGossipScore                       // below the score at which gossip hears nothing of it any more
)

var offences = map[Misconduct]conduct.Offence{
	SentGarbage: conduct.Garbage, Stalled: conduct.Stalled, Flooded: conduct.Flooding, LowGossipScore: conduct.Graylisted,
}

// Misbehaved holds something against a peer of a persona; for an unknown persona it does nothing. It may close the peer's connections, so it
// must not be called from within them.
func (b *Broker) Misbehaved(name, peer string, m Misconduct) {
	if p, err := b.persona(name); err == nil {
		p.misbehaved(peer, m)
	}
}

func (p *persona) misbehaved(peer string, m Misconduct) {
	if o, ok := offences[m]; ok {
		p.broker.charge(p, peer, o)
	}
}

// standing is what is held against a peer, in points: 0 is the best.
func (p *persona) standing(peer string) float64 {
	b := p.broker
	b.conduct.Lock()
	defer b.conduct.Unlock()
	return b.conduct.ledger.Points(p.name+"\x00"+peer, time.Now())
}
