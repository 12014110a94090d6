package onion

import (
	"context"
	"fmt"
	"net"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/pnet"
	"github.com/multiformats/go-multistream"
)

// upgrade makes a connection of a circuit: the network's key, Noise, yamux. The library's upgrader, which does so for what comes in, asks first whether the other side speaks Noise
// and waits for its yes. Here is only one thing to speak: it is said and begun in the same breath, which saves a round trip, and a no shows with the answer.
//
// Both run on a circuit that tor may not have yet. On an error the caller closes it.
func (t *Transport) upgrade(ctx context.Context, c conn, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	var raw net.Conn = c
	if t.layers.PSK != nil {
		protected, err := pnet.NewProtectedConn(t.layers.PSK, c)
		if err != nil {
			return nil, fmt.Errorf("set up the private network: %w", err)
		}
		raw = protected
	}
	secure, err := t.layers.Security.SecureOutbound(ctx, lazy{raw, multistream.NewMSSelect(raw, t.layers.Security.ID())}, p)
	if err != nil {
		return nil, fmt.Errorf("agree on keys: %w", err)
	}
	if g := t.layers.Gater; g != nil && !g.InterceptSecured(network.DirOutbound, secure.RemotePeer(), c) {
		return nil, fmt.Errorf("connections to the peer are not wanted")
	}
	state := secure.ConnState()
	if state.StreamMultiplexer != t.layers.Muxer.ID {
		return nil, fmt.Errorf("the peer does not share streams as every node does (%s)", t.layers.Muxer.ID)
	}
	streams, err := t.layers.Muxer.Muxer.NewConn(secure, false, scope.PeerScope())
	if err != nil {
		return nil, err
	}
	state.Security, state.Transport = t.layers.Security.ID(), t.String()
	return &link{MuxedConn: streams, ConnSecurity: secure, ConnMultiaddrs: c, transport: t, scope: scope, state: state}, nil
}

// lazy says with the first write what is spoken, and reads the other side's assent with the first read.
type lazy struct {
	net.Conn
	negotiated multistream.LazyConn
}

func (l lazy) Read(b []byte) (int, error)  { return l.negotiated.Read(b) }
func (l lazy) Write(b []byte) (int, error) { return l.negotiated.Write(b) }

// link is a connection that this transport has dialled.
type link struct {
	network.MuxedConn
	network.ConnSecurity
	network.ConnMultiaddrs
	transport *Transport
	scope     network.ConnManagementScope
	state     network.ConnectionState
}

func (l *link) Transport() transport.Transport     { return l.transport }
func (l *link) Scope() network.ConnScope           { return l.scope }
func (l *link) ConnState() network.ConnectionState { return l.state }
func (l *link) As(target any) bool                 { return l.MuxedConn.As(target) }

// Close ends the connection and gives back what it took.
func (l *link) Close() error {
	defer l.scope.Done()
	return l.MuxedConn.Close()
}

// CloseWithError does so, and tells the peer why.
func (l *link) CloseWithError(code network.ConnErrorCode) error {
	defer l.scope.Done()
	return l.MuxedConn.CloseWithError(code)
}

var _ transport.CapableConn = (*link)(nil)
