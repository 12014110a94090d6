package hostile

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/net/proxy"
)

// Tor is how a tor is reached: its two Unix sockets, and what opens the control port.
type Tor struct {
	Socks, Control, Cookie string
}

// onionPort is the one under which nodes are reached.
const onionPort = 4001

// OnionAddress is where the peer of a key is reached (rend-spec-v3, "Encoding onion addresses").
func OnionAddress(key ed25519.PublicKey) ma.Multiaddr {
	sum := sha3.Sum256(append(append([]byte(".onion checksum"), key...), 3))
	id := base32.StdEncoding.EncodeToString(append(append(append([]byte(nil), key...), sum[:2]...), 3))
	return ma.StringCast(fmt.Sprintf("/onion3/%s:%d", strings.ToLower(id), onionPort))
}

// publish makes an onion service that leads to a Unix socket, and returns when somebody can find it. It is there until the closer is closed.
func (t Tor) publish(ctx context.Context, seed []byte, socket string) (io.Closer, error) {
	cookie, err := os.ReadFile(t.Cookie)
	if err != nil {
		return nil, err
	}
	c, err := net.Dial("unix", t.Control)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	expanded := sha512.Sum512(seed)
	expanded[0] &= 248
	expanded[31] = expanded[31]&63 | 64
	_, err = fmt.Fprintf(c, "AUTHENTICATE %s\r\nSETEVENTS HS_DESC\r\nADD_ONION ED25519-V3:%s Port=%d,unix:%s\r\n",
		hex.EncodeToString(cookie), base64.StdEncoding.EncodeToString(expanded[:]), onionPort, socket)
	for r := bufio.NewReader(c); err == nil; {
		var line string
		line, err = r.ReadString('\n')
		switch {
		case strings.Contains(line, "HS_DESC UPLOADED"):
			go func() { _, _ = io.Copy(io.Discard, r) }() // tor must not wait for its reader
			return c, nil
		case err == nil && !strings.HasPrefix(line, "250") && !strings.HasPrefix(line, "650"):
			err = fmt.Errorf("tor says %q", line)
		}
	}
	return nil, errors.Join(fmt.Errorf("no onion service: %w", err), c.Close())
}

// overTor is a transport over onion services as an outsider would write it: what it dials it does not look at.
type overTor struct {
	tor      Tor
	socket   string // where tor brings what comes in
	upgrader transport.Upgrader
	rm       network.ResourceManager
}

// Transport makes a constructor of the transport, as libp2p.Transport takes it.
func (t Tor) Transport(socket string) func(transport.Upgrader, network.ResourceManager) transport.Transport {
	return func(up transport.Upgrader, rm network.ResourceManager) transport.Transport {
		return &overTor{t, socket, up, rm}
	}
}

func (t *overTor) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	at, err := a.ValueForProtocol(ma.P_ONION3)
	if err != nil {
		return nil, err
	}
	d, err := proxy.SOCKS5("unix", t.tor.Socks, &proxy.Auth{User: rand.Text(), Password: "-"}, nil)
	if err != nil {
		return nil, err
	}
	id, port, _ := strings.Cut(at, ":")
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", net.JoinHostPort(id+".onion", port))
	if err != nil {
		return nil, err
	}
	scope, err := t.rm.OpenConnection(network.DirOutbound, true, a)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t.upgrader.Upgrade(ctx, t, onionConn{c, a, a}, network.DirOutbound, p, scope)
}

func (t *overTor) CanDial(a ma.Multiaddr) bool {
	return len(a) == 1 && a[0].Protocol().Code == ma.P_ONION3
}

func (t *overTor) Listen(a ma.Multiaddr) (transport.Listener, error) {
	l, err := net.Listen("unix", t.socket)
	if err != nil {
		return nil, err
	}
	return t.upgrader.UpgradeGatedMaListener(t, t.upgrader.GateMaListener(onionListener{l, a})), nil
}

func (t *overTor) Protocols() []int { return []int{ma.P_ONION3} }
func (t *overTor) Proxy() bool      { return false }

type onionConn struct {
	net.Conn
	local, remote ma.Multiaddr
}

func (c onionConn) LocalMultiaddr() ma.Multiaddr  { return c.local }
func (c onionConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

type onionListener struct {
	net.Listener
	at ma.Multiaddr
}

func (l onionListener) Multiaddr() ma.Multiaddr { return l.at }

func (l onionListener) Accept() (manet.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return onionConn{c, l.at, l.at}, nil
}

// publishTime bounds how long an onion service may take to be found: a busy machine takes its time.
const publishTime = 90 * time.Second
