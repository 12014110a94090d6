package libp2p

import (
	"context"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
)

// inbound is a host's onion service.
type inbound struct {
	seed      []byte
	serviceID string
	socket    string
	at        ma.Multiaddr
}

// socket is where tor brings what comes in for a host of a persona; empty where nothing does. Only the node's own persona can be reached, and where it only dials, none.
func (n *Network) socket(persona, name string) string {
	if n.cfg.Onion == nil || !n.cfg.Onion.Service || persona != "" {
		return ""
	}
	return filepath.Join(n.cfg.Onion.Dir, name)
}

// onion says what a host needs in anonymous mode. Without a socket it only dials.
func (n *Network) onion(key crypto.PrivKey, seed []byte, socket string) (cfg onion.Config, in *inbound, err error) {
	o := n.cfg.Onion
	if o == nil {
		return cfg, nil, nil
	}
	cfg.SOCKS, cfg.Authorize = o.SOCKS, o.Authorize
	if cfg.Self, err = peer.IDFromPrivateKey(key); err != nil || socket == "" {
		return cfg, nil, err
	}
	raw, err := key.GetPublic().Raw()
	if err != nil {
		return cfg, nil, err
	}
	in = &inbound{seed: seed, serviceID: onionsvc.ID(raw), socket: socket}
	if in.at, err = onion.Address(cfg.Self); err != nil {
		return cfg, nil, err
	}
	cfg.Socket = in.socket
	return cfg, in, nil
}

// watchIdentified closes connections to peers that have not said what they speak within the library's 5 s. Gossip never hears of such a peer, and identify does not ask again:
// the connection would stand there and be of no use.
func (h *Host) watchIdentified(ctx context.Context, of host.Host) error {
	if !h.network.profile.watchIdentify {
		return nil
	}
	sub, err := of.EventBus().Subscribe(new(event.EvtPeerIdentificationFailed), eventbus.BufSize(256))
	if err != nil {
		return err
	}
	h.wg.Go(func() {
		defer sub.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-sub.Out():
				if !ok {
					return
				}
				_ = of.Network().ClosePeer(e.(event.EvtPeerIdentificationFailed).Peer)
			}
		}
	})
	return nil
}
