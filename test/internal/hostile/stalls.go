package hostile

import (
	"context"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// HalfOpen begins a frame on a stream and goes silent. It returns how long it took until the victim ended the stream.
func (p *Peer) HalfOpen(ctx context.Context, id protocol.ID) (time.Duration, error) {
	s, err := p.stream(ctx, id)
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	begun := []byte{0x80} // a length that is not all there
	if id == eventProtocol {
		begun = []byte{0, 0}
	}
	if _, err := s.Write(begun); err != nil {
		return 0, err
	}
	start := time.Now()
	_, _ = io.Copy(io.Discard, s)
	return time.Since(start), ctx.Err()
}

// Framed are the victim's protocols that have frames.
func Framed() []protocol.ID {
	return []protocol.ID{eventProtocol, gossipProtocol, "/ipfs/bitswap/1.2.0"}
}

// SlowReader asks and never reads, neither the acknowledgements nor, on the stream that the victim opens, the answers.
func (p *Peer) SlowReader(ctx context.Context) {
	p.host.SetStreamHandler(eventProtocol, func(s network.Stream) {
		<-ctx.Done()
		_ = s.Reset()
	})
	p.flood(ctx, false, func() *eventv1.Event {
		return p.event(eventv1.EventType_EVENT_TYPE_DISCOVER, &eventv1.Discover{Limit: 32})
	})
}
