package onion

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
	"github.com/shallot-net/shallot/broker/internal/oniontest"
)

func newPeer(t testing.TB) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

// The address of the Tor Project's own web site, whose key and checksum are others' work.
func TestAddressesAreTors(t *testing.T) {
	const site = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid"
	raw, err := base32.StdEncoding.DecodeString(strings.ToUpper(site))
	if err != nil {
		t.Fatal(err)
	}
	if got := onionsvc.ID(ed25519.PublicKey(raw[:32])); got != site {
		t.Errorf("the address of its key is %s", got)
	}
}

func TestAddressAndPeerBelongTogether(t *testing.T) {
	_, id := newPeer(t)
	_, other := newPeer(t)
	own, err := Address(id)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := PeerOf(own); err != nil || got != id {
		t.Errorf("the address is of %v, %v", got, err)
	}
	if !IsAddressOf(own, id) || IsAddressOf(own, other) {
		t.Error("whose the address is")
	}
	service := strings.TrimSuffix(strings.TrimPrefix(own.String(), "/onion3/"), ":4001")
	flipped := []byte(service)
	if flipped[3]++; flipped[3] > 'z' || flipped[3] == '8' {
		flipped[3] = 'a'
	}
	for name, s := range map[string]string{
		"another port":       "/onion3/" + service + ":80",
		"a wrong checksum":   "/onion3/" + string(flipped) + ":4001",
		"a relay behind it":  own.String() + "/p2p/" + other.String() + "/p2p-circuit",
		"with the peer":      own.String() + "/p2p/" + id.String(),
		"around another":     "/ip4/192.0.2.7/tcp/4001",
		"a name":             "/dnsaddr/example.org",
		"the marker":         marker.String(),
		"something inside":   own.String() + "/ws",
		"an old address":     "/onion/timaq4ygg2iegci7:80",
		"an address and tcp": own.String() + "/tcp/1",
	} {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := PeerOf(a); !errors.Is(err, ErrNotOnion) {
			t.Errorf("%s is taken for an address: %v", name, err)
		}
		if IsAddressOf(a, id) {
			t.Errorf("%s is taken for the peer's address", name)
		}
		if (&Transport{}).CanDial(a) {
			t.Errorf("%s can be dialled", name)
		}
	}
	if _, err := PeerOf(nil); err == nil {
		t.Error("no address is one")
	}
}

func TestKeysOfOtherKindsHaveNoAddress(t *testing.T) {
	key, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := Address(id); !errors.Is(err, ErrNotOnion) {
		t.Errorf("%v, %v", a, err)
	}
	if a, err := Address("not an id"); !errors.Is(err, ErrNotOnion) {
		t.Errorf("%v, %v", a, err)
	}
}

func FuzzPeerOf(f *testing.F) {
	_, id := newPeer(f)
	own, _ := Address(id)
	f.Add(own.Bytes())
	f.Add(marker.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return
		}
		p, err := PeerOf(a)
		if err == nil && !IsAddressOf(a, p) {
			t.Errorf("%s is of %s, and is not", a, p)
		}
	})
}

func TestBookKeepsNothingButOwnOnions(t *testing.T) {
	inner, err := pstoremem.NewPeerstore()
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	book := Book{inner}
	key, id := newPeer(t)
	_, other := newPeer(t)
	own, _ := Address(id)
	foreign, _ := Address(other)
	canaries := []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.7/tcp/4001"), ma.StringCast("/ip6/2001:db8::7/udp/4001/quic-v1"), ma.StringCast("/dnsaddr/canary.example"),
		ma.StringCast("/dns4/canary.example/tcp/1"), foreign, ma.StringCast(own.String() + "/p2p/" + other.String() + "/p2p-circuit"), marker}
	kept := func(want int) {
		t.Helper()
		if got := book.Addrs(id); len(got) != want || want == 1 && !got[0].Equal(own) {
			t.Errorf("%v are kept", got)
		}
	}
	book.AddAddrs(id, canaries, peerstore.PermanentAddrTTL)
	book.SetAddrs(id, canaries, peerstore.PermanentAddrTTL)
	for _, a := range canaries {
		book.AddAddr(id, a, peerstore.PermanentAddrTTL)
		book.SetAddr(id, a, peerstore.PermanentAddrTTL)
	}
	kept(0)
	rec := &peer.PeerRecord{PeerID: id, Addrs: append([]ma.Multiaddr{own}, canaries...), Seq: 1}
	envelope, err := record.Seal(rec, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := book.ConsumePeerRecord(envelope, peerstore.PermanentAddrTTL); err != nil {
		t.Error(err)
	}
	kept(1)
	if book.GetPeerRecord(id) != nil {
		t.Error("a record is handed on with all that is in it")
	}
	book.SetAddr(id, own, 0)
	kept(0)
	book.AddAddr(id, own, time.Hour)
	kept(1)
}

// A record of one peer under another's signature moves nobody.
func TestBookTakesNoRecordOfOthers(t *testing.T) {
	inner, err := pstoremem.NewPeerstore()
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	key, _ := newPeer(t)
	_, victim := newPeer(t)
	at, _ := Address(victim)
	envelope, err := record.Seal(&peer.PeerRecord{PeerID: victim, Addrs: []ma.Multiaddr{at}, Seq: 1}, key)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := (Book{inner}).ConsumePeerRecord(envelope, time.Hour); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if got := inner.Addrs(victim); len(got) != 0 {
		t.Errorf("%v are kept", got)
	}
}

func TestDial(t *testing.T) {
	tor := oniontest.New(t)
	_, id := newPeer(t)
	own, _ := Address(id)
	service, _, _ := split(own)
	socket := filepath.Join(tor.Dir, "in")
	if err := os.Chmod(tor.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listenUnix(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()

	if _, err := dialSOCKS(t.Context(), tor.SOCKS, "a", service, Port); !errors.Is(err, ErrNoService) {
		t.Errorf("an unknown service: %v", err)
	}
	tor.Keep(nil, service, socket)
	c, err := dialSOCKS(t.Context(), tor.SOCKS, "a", service, Port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Errorf("%q, %v", got, err)
	}
	if err := Probe(t.Context(), tor.SOCKS, service); err != nil {
		t.Errorf("a probe: %v", err)
	}
	dials := tor.Dials()
	if d := dials[1]; d.Token != "a" || d.Host != service+".onion" || d.Port != Port {
		t.Errorf("tor was asked for %+v", d)
	}
	if dials[2].Token == "a" || len(dials[2].Token) < 20 {
		t.Errorf("the probe has the token %q", dials[2].Token)
	}

	tor.Answer(service, oniontest.Forbidden)
	if _, err := dialSOCKS(t.Context(), tor.SOCKS, "a", service, Port); !errors.Is(err, ErrForbidden) {
		t.Errorf("a service that asks for a key: %v", err)
	}
	tor.Answer(service, oniontest.Silent)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dialSOCKS(ctx, tor.SOCKS, "a", service, Port); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a dial that is given up: %v", err)
	}
	tor.Kill()
	if _, err := dialSOCKS(t.Context(), tor.SOCKS, "a", service, Port); !errors.Is(err, ErrOffline) || strings.Contains(err.Error(), tor.SOCKS) {
		t.Errorf("without tor: %v", err)
	}
}

// Whatever answers at the socket, a dial ends with an error and says what it met.
func TestDialMeetsWhatIsNoTor(t *testing.T) {
	for name, talk := range map[string]func(net.Conn){
		"hangs up":         func(net.Conn) {},
		"wants no name":    func(c net.Conn) { _, _ = c.Write([]byte{5, 0}) },
		"accepts nothing":  func(c net.Conn) { _, _ = c.Write([]byte{5, 0xff}) },
		"refuses the name": func(c net.Conn) { _, _ = c.Write([]byte{5, 2, 1, 1}) },
		"speaks HTTP":      func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n")) },
		"half an answer":   func(c net.Conn) { _, _ = c.Write([]byte{5, 2, 1, 0, 5, 0, 0}) },
		"an unknown form":  func(c net.Conn) { _, _ = c.Write([]byte{5, 2, 1, 0, 5, 0, 0, 9, 0, 0}) },
		"half an address":  func(c net.Conn) { _, _ = c.Write([]byte{5, 2, 1, 0, 5, 0, 0, 3, 4, 'e', 'v'}) },
		"an unknown code":  func(c net.Conn) { _, _ = c.Write([]byte{5, 2, 1, 0, 5, 0x77, 0, 1, 0, 0, 0, 0, 0, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				talk(c)
				_ = c.(*net.UnixConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if c, err := dialSOCKS(ctx, socket, "t", strings.Repeat("a", 56), Port); err == nil {
				c.Close()
				t.Error("it is taken for a connection")
			} else if ctx.Err() != nil {
				t.Errorf("it was waited for: %v", err)
			}
		})
	}
}

func TestTheWayInIsForTorAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if l, err := listenUnix(filepath.Join(dir, "in")); err == nil {
		l.Close()
		t.Error("everybody may come in")
	}
}
