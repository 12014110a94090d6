package onion

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxDials bounds the dials that are under way: tor builds 32 circuits at a time (MaxClientCircuitsPending), and shares them among all that use it.
const maxDials = 16

// Config of a host's transport.
type Config struct {
	SOCKS string // the path of tor's SOCKS socket
	// Socket is the path of the Unix socket where tor is to bring what comes in. Its directory has to be there. Empty: the host only dials.
	Socket string
	Self   peer.ID
	// Authorize lets tor see a service of a private network, before it is dialled; nil in an open one.
	Authorize func(ctx context.Context, serviceID string) error

	connect func(ctx context.Context, token, serviceID string) (net.Conn, error) // askSOCKS; for tests
}

// Layers are what a connection is made of above the circuit, one of each: so there is nothing to agree on, see upgrade.
type Layers struct {
	Security sec.SecureTransport
	Muxer    upgrader.StreamMuxer
	PSK      pnet.PSK // of a private network; nil: an open one
	Gater    connmgr.ConnectionGater
	Upgrader transport.Upgrader // of what comes in
}

// Transport is a libp2p transport that knows onion addresses and no others. Its dials never share a circuit with those of another Transport, nor with each other: who dials
// again has lost a circuit, and wants none of its parts.
type Transport struct {
	cfg    Config
	layers Layers
	rm     network.ResourceManager
	dials  chan struct{}
}

var _ transport.Transport = (*Transport)(nil)

// NewTransport makes the transport of one host.
func NewTransport(cfg Config, layers Layers, rm network.ResourceManager) *Transport {
	if cfg.connect == nil {
		cfg.connect = func(ctx context.Context, token, serviceID string) (net.Conn, error) {
			return askSOCKS(ctx, cfg.SOCKS, token, serviceID, Port)
		}
	}
	return &Transport{cfg: cfg, layers: layers, rm: rm, dials: make(chan struct{}, maxDials)}
}

// CanDial is for onion addresses of the only form that there is. Whose it is shows with Dial.
func (t *Transport) CanDial(a ma.Multiaddr) bool {
	_, err := PeerOf(a)
	return err == nil
}

// Listen takes what tor brings. That is nothing until somebody has told tor of the socket.
func (t *Transport) Listen(a ma.Multiaddr) (transport.Listener, error) {
	if !IsAddressOf(a, t.cfg.Self) || t.cfg.Socket == "" {
		return nil, ErrNotOnion
	}
	l, err := listenUnix(t.cfg.Socket)
	if err != nil {
		return nil, err
	}
	up := t.layers.Upgrader
	return up.UpgradeGatedMaListener(t, up.GateMaListener(&listener{l, a})), nil
}

// listenUnix takes the place of a socket that a killed process left. Nobody else can enter the directory.
func listenUnix(path string) (net.Listener, error) {
	if info, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("the directory of tor's way in: %w", err)
	} else if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("others than its owner and group can enter %s, and so come in beside tor: chmod o-rwx it", filepath.Dir(path))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove what was left: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Protocols are those of the addresses.
func (t *Transport) Protocols() []int { return []int{ma.P_ONION3} }

// Proxy is about relays, which this is not.
func (t *Transport) Proxy() bool { return false }

func (t *Transport) String() string { return "onion" }

// conn is a connection that tells nothing of this machine's sockets.
type conn struct {
	*corked
	local, remote ma.Multiaddr
}

func (c conn) LocalMultiaddr() ma.Multiaddr  { return c.local }
func (c conn) RemoteMultiaddr() ma.Multiaddr { return c.remote }
func (c conn) LocalAddr() net.Addr           { return addr("onion") }
func (c conn) RemoteAddr() net.Addr          { return addr("onion") }

// listener is where tor brings connections. Who comes is not known before the handshake.
type listener struct {
	net.Listener
	at ma.Multiaddr
}

func (l *listener) Accept() (manet.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn{newCorked(c), l.at, marker}, nil
}

func (l *listener) Multiaddr() ma.Multiaddr { return l.at }
func (l *listener) Addr() net.Addr          { return addr("onion") }
