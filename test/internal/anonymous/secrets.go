package anonymous

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shallot-net/shallot/test/internal/hostile"
)

// Kinds of secrets, in the order of what they give away.
const (
	Place    = "where somebody is" // an address of this machine, or a canary in the place of one
	Key      = "a private key"
	Identity = "a peer id or an onion address"
)

// secret is a text that must not be found.
type secret struct{ kind, text string }

// Secrets are all keys that the nodes of a network have had, since Gather began.
type Secrets struct {
	mu    sync.Mutex
	seeds map[string]ed25519.PrivateKey // by what it is to be told by
	ids   map[string]bool               // of peers that are no nodes
}

// Gather notes keys as they come until ctx ends: those of personas are gone when their tasks have ended.
func (n *Network) Gather(ctx context.Context) *Secrets {
	s := &Secrets{seeds: map[string]ed25519.PrivateKey{}, ids: map[string]bool{}}
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			s.look(n.Dir)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return s
}

func (s *Secrets) look(dir string) {
	for _, pattern := range []string{"identity.pem", "personas/*.pem"} {
		files, _ := filepath.Glob(filepath.Join(dir, "*", "state", "broker", pattern))
		for _, f := range files {
			s.mu.Lock()
			known := s.seeds[f] != nil
			s.mu.Unlock()
			if known {
				continue
			}
			raw, err := os.ReadFile(f)
			block, _ := pem.Decode(raw)
			if err != nil || block == nil {
				continue // it has gone, or is being written
			}
			if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				s.mu.Lock()
				s.seeds[f], _ = key.(ed25519.PrivateKey)
				s.mu.Unlock()
			}
		}
	}
}

// Peers adds peers of which nobody must be told by name.
func (s *Secrets) Peers(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.ids[id] = true
	}
}

// Keys is how many keys there were, those of personas among them.
func (s *Secrets) Keys() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seeds)
}

// finder looks for all there are now.
func (s *Secrets) finder() (*finder, error) {
	all, err := s.all()
	return newFinder(all), err
}

// all are the texts to look for.
func (s *Secrets) all() (out []secret, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range hostile.CanaryMarks() {
		out = append(out, secret{Place, m})
	}
	own, err := machine()
	if err != nil {
		return nil, err
	}
	for _, a := range own {
		out = append(out, secret{Place, a})
	}
	for _, key := range s.seeds {
		for _, f := range forms(key) {
			out = append(out, secret{Key, f})
		}
		if out, err = identity(out, key); err != nil {
			return nil, err
		}
	}
	for id := range s.ids {
		out = append(out, secret{Identity, id})
	}
	return out, nil
}

// forms are those in which a key may be written: as it is, as digits, and as PEM, libp2p and tor would have it.
func forms(key ed25519.PrivateKey) (out []string) {
	seed := key.Seed()
	out = append(out, string(seed), hex.EncodeToString(seed), strings.ToUpper(hex.EncodeToString(seed)))
	// In base64 the same bytes look differently after 0, 1 and 2 others; what depends on the neighbours at either end is left off.
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), seed...))
		text = strings.TrimRight(text, "=")[(shift*8+5)/6 : 42]
		out = append(out, text, strings.NewReplacer("+", "-", "/", "_").Replace(text))
	}
	return out
}

// identity adds how others could name the holder of a key.
func identity(out []secret, key ed25519.PrivateKey) ([]secret, error) {
	public, _ := key.Public().(ed25519.PublicKey)
	k, err := crypto.UnmarshalEd25519PublicKey(public)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPublicKey(k)
	if err != nil {
		return nil, err
	}
	onion := strings.TrimPrefix(hostile.OnionAddress(public).String(), "/onion3/")
	onion, _, _ = strings.Cut(onion, ":")
	return append(out, secret{Identity, id.String()}, secret{Identity, onion}), nil
}

// machine are the addresses of this machine by which others would find it.
func machine() (out []string, err error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			out = append(out, n.IP.String())
		}
	}
	return out, nil
}

// finder looks for many texts at once: by their first two bytes, which next to no place in a file has.
type finder [1 << 16][]secret

func newFinder(secrets []secret) *finder {
	var f finder
	for _, s := range secrets {
		i := int(s.text[0])<<8 | int(s.text[1])
		f[i] = append(f[i], s)
	}
	return &f
}

// in are the kinds of secrets in some bytes, with the first of each kind.
func (f *finder) in(b []byte) map[string]string {
	out := map[string]string{}
	for i := 0; i+1 < len(b); i++ {
		for _, s := range f[int(b[i])<<8|int(b[i+1])] {
			if out[s.kind] == "" && bytes.HasPrefix(b[i:], []byte(s.text)) {
				out[s.kind] = s.text
			}
		}
	}
	return out
}
