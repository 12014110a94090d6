package logging

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
	"sync"
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

func (r redacted) LogValue() slog.Value { return slog.StringValue(r.String()) }

func (r redacted) String() string {
	if r.value == "" {
		return ""
	}
	return r.kind + "-" + short(r.value)
}

// Peer is the attribute for a peer id: a short hash that differs in every run.
func Peer(id string) slog.Attr { return slog.Any(KeyPeer, redacted{"peer", id}) }

// Addr is the attribute for any address of a node: IP, onion, multiaddr.
func Addr(addr string) slog.Attr { return slog.Any(KeyAddr, redacted{"addr", addr}) }

// Secret is the attribute for a key, a token, a password.
func Secret(key, value string) slog.Attr { return slog.Any(key, redacted{"secret", value}) }

// Redact is Peer's value for texts that are no log lines, such as a message for the terminal.
func Redact(id string) string { return redacted{"peer", id}.String() }

const base58 = `[1-9A-HJ-NP-Za-km-z]`

var (
	identities = regexp.MustCompile(`(?:/(?:ip4|ip6|ip6zone|dns|dns4|dns6|dnsaddr|onion3?|p2p|ipfs)/[^\s"\\,;)\]]+)` +
		`|\b12D3Koo` + base58 + `{20,}` + `|\b16Uiu2` + base58 + `{20,}` + `|\bQm` + base58 + `{44}\b` +
		`|\bk51[0-9a-z]{40,}` + `|\bk2k4r8[0-9a-z]{40,}` + `|\bbafz[a-z2-7]{50,}` +
		`|\b[a-z2-7]{56}\b(?:\.onion)?(?::\d+)?` + `|\b[a-z2-7]{16}\.onion(?::\d+)?`)
	ips = regexp.MustCompile(`\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d{1,5})?` + `|\[?[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.\d{1,3}){0,3}(?:%\w+)?\]?(?::\d{1,5})?`)
)

// Scrub replaces what looks like a peer id, an onion address, a multiaddr or an IP address. This machine's own
// loopback says nothing about where a node is and stays readable.
func Scrub(s string) string {
	s = identities.ReplaceAllStringFunc(s, func(m string) string { return "<redacted-" + short(m) + ">" })
	if !strings.ContainsAny(s, ".:") {
		return s
	}
	return ips.ReplaceAllStringFunc(s, func(m string) string {
		ip, ok := parseIP(m)
		if !ok || ip.IsLoopback() || ip.IsUnspecified() {
			return m
		}
		return "<redacted-" + short(m) + ">"
	})
}

func parseIP(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr(), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a, err == nil
}

// guard scrubs whole lines, and so messages, attributes, groups and whatever a value's String or MarshalJSON
// made. A slog handler writes one line a call.
type guard struct{ w io.Writer }

func (g guard) Write(line []byte) (int, error) {
	if _, err := io.WriteString(g.w, Scrub(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}
