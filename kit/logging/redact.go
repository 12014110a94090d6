package logging

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
)

// hashKey lives as long as the process: lines of one run can be correlated, lines of two runs cannot, and
// nobody who knows an address can look for it.
var hashKey = sync.OnceValue(func() []byte {
	k := make([]byte, 32)
	_, _ = rand.Read(k) // it never fails
	return k
})

func short(v string) string {
	m := hmac.New(sha256.New, hashKey())
	_, _ = io.WriteString(m, v)
	return hex.EncodeToString(m.Sum(nil)[:4])
}

// redacted hashes only when a line is really written.
type redacted struct{ kind, value string }

const kindPeer = "peer"

func (r redacted) LogValue() slog.Value { return slog.StringValue(r.String()) }

func (r redacted) String() string {
	if r.value == "" {
		return ""
	}
	if name := peerNames.Load(); r.kind == kindPeer && name != nil {
		if s := (*name)(r.value); s != "" {
			return s
		}
	}
	return r.kind + "-" + short(r.value)
}

// peerNames is of the process, as hashKey is: whatever logger a line is written with, a peer has one name.
var peerNames atomic.Pointer[func(id string) string]

// NamePeers has this process call peers by names that others know them by, too; "" is one of whom there is none, and nil names nobody.
// It is for names that do not tell who is meant.
func NamePeers(name func(id string) string) {
	if name == nil {
		peerNames.Store(nil)
		return
	}
	peerNames.Store(&name)
}

// Peer is the attribute for a peer id: what NamePeers calls it, else a short hash that differs in every run.
func Peer(id string) slog.Attr { return slog.Any(KeyPeer, redacted{kindPeer, id}) }

// Addr is the attribute for any address of a node: IP, onion, multiaddr.
func Addr(addr string) slog.Attr { return slog.Any(KeyAddr, redacted{"addr", addr}) }

// Secret is the attribute for a key, a token, a password.
func Secret(key, value string) slog.Attr { return slog.Any(key, redacted{"secret", value}) }

// Redact is Peer's value for texts that are no log lines, such as a message for the terminal.
func Redact(id string) string { return redacted{kindPeer, id}.String() }

// The guard reads lines in which JSON has escaped what is no letter: an escape is a boundary too.
const (
	base58 = `[1-9A-HJ-NP-Za-km-z]`
	begin  = `(?:\\[nrtbf]|\\u[0-9a-f]{4}|\b)`
)

var identities = regexp.MustCompile(`/(?:ip4|ip6|ip6zone|dns|dns4|dns6|dnsaddr|onion3?|p2p|ipfs|ipns)/[^\s"\\,;)\]]+` +
	`|12D3Koo` + base58 + `{20,}` + `|16Uiu2` + base58 + `{20,}` + `|` + begin + `Qm` + base58 + `{44}\b` +
	`|k51[0-9a-z]{40,}` + `|k2k4r8[0-9a-z]{40,}` + `|bafz[a-z2-7]{50,}` +
	`|` + begin + `[a-z2-7]{56}\b(?:\.onion)?(?::\d+)?` + `|[a-z2-7]{16}\.onion(?::\d+)?`)

// Scrub replaces what looks like a peer id, an onion address, a multiaddr or an IP address. This machine's own
// loopback says nothing about where a node is and stays readable.
func Scrub(s string) string {
	if mayIdentify(s) {
		s = identities.ReplaceAllStringFunc(s, hidden)
	}
	if !strings.ContainsAny(s, ".:") {
		return s
	}
	return scrubIPs(s)
}

var marks = []string{"12D3Koo", "16Uiu2", "Qm", "k51", "k2k4r8", "bafz", ".onion", "/ip", "/dns", "/onion", "/p2p"}

// mayIdentify spares most lines the pattern, which costs ten times as much as to look for what it begins with.
func mayIdentify(s string) bool {
	for _, m := range marks {
		if strings.Contains(s, m) {
			return true
		}
	}
	run := 0 // of an onion address without its suffix
	for i := range len(s) {
		if c := s[i]; c >= 'a' && c <= 'z' || c >= '2' && c <= '7' {
			if run++; run == 56 {
				return true
			}
		} else {
			run = 0
		}
	}
	return false
}

func hidden(m string) string { return "<redacted-" + short(m) + ">" }

// guard scrubs whole lines, and so messages, attributes, groups and whatever a value's String or MarshalJSON
// made. A slog handler writes one line a call.
type guard struct{ w io.Writer }

func (g guard) Write(line []byte) (int, error) {
	if _, err := io.WriteString(g.w, Scrub(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}
