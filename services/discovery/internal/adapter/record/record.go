// Package record is how stores write down what they keep.
package record

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/discovery/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/discovery/internal/app"
	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// ReadPeer makes a row of an announcement as its author signed it. Its times are the caller's.
func ReadPeer(id, state string, signed []byte) (domain.Peer, error) {
	var ev eventv1.Event
	if err := proto.Unmarshal(signed, &ev); err != nil {
		return domain.Peer{}, err
	}
	h, err := broker.Hear(&ev)
	if err != nil {
		return domain.Peer{}, err
	}
	if h.Announcement.PeerID != id {
		return domain.Peer{}, fmt.Errorf("the announcement is another peer's")
	}
	return domain.Peer{Announcement: h.Announcement.Clamped(), Signed: h.Signed, State: domain.State(state)}, nil
}

// Self encodes what this node's announcement says.
func Self(self app.Self) ([]byte, error) {
	b, err := proto.Marshal(&eventv1.Announcement{Capabilities: broker.EncodeCapabilities(self.Capabilities), SealingKey: self.SealingKey})
	if err != nil {
		return nil, fmt.Errorf("encode this node's announcement: %w", err)
	}
	return b, nil
}

// ReadSelf reads what Self wrote; false where it cannot be read any more: node says it again.
func ReadSelf(b []byte) (app.Self, bool) {
	var m eventv1.Announcement
	if err := proto.Unmarshal(b, &m); err != nil {
		return app.Self{}, false
	}
	caps, err := broker.DecodeCapabilities(m.GetCapabilities())
	if err != nil {
		return app.Self{}, false
	}
	return app.Self{Capabilities: caps, SealingKey: m.GetSealingKey()}, true
}
