package domain

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of what an announcement may say.
const (
	MaxAddresses    = 16
	MaxAddress      = 256 // bytes
	MaxCapabilities = 32
	MaxAttributes   = 16
	MaxAnnouncement = 16 << 10 // bytes, encoded
	MinInterval     = time.Second
	MaxInterval     = 24 * time.Hour
	maxPeerID       = 128
	maxType         = 64
	maxVersion      = 64
	maxKey          = 64
	maxValue        = 256
	maxSealingKey   = 4096 // a hybrid post-quantum age recipient has about 2,000
	minSealingKey   = 16
)

// RoleProvider is the only role that announces itself.
const RoleProvider = "provider"

// Announcement is a provider's statement of itself.
type Announcement struct {
	PeerID       string
	Version      uint64
	Role         string
	Capabilities []Capability
	SealingKey   string
	Addresses    []string
	Interval     time.Duration // the next one is to be expected within it
	Leaving      bool
	Effort       uint32 // what a stranger's submission costs, about; see Puzzle
}

// Puzzle is what a stranger's submission costs now.
type Puzzle struct {
	Nonce  []byte // NonceSize; none where nothing is ever asked for
	Effort uint32 // 0, or a power of two
}

// Bounds of a price.
const (
	NonceSize = 16
	MaxEffort = 1 << 24
)

// EffortShaped tells whether n can be an effort.
func EffortShaped(n uint32) bool { return n <= MaxEffort && n&(n-1) == 0 }

// Check finds what is wrong with a price, as an *Invalid.
func (p *Puzzle) Check() error {
	if len(p.Nonce) != NonceSize && (len(p.Nonce) != 0 || p.Effort != 0) || !EffortShaped(p.Effort) {
		return invalid("PUZZLE_INVALID", "the puzzle has no nonce of %d bytes, or its effort %d is no power of two of at most %d", NonceSize, p.Effort, MaxEffort)
	}
	return nil
}

// EffortNews tells whether an effort differs so much from what was announced that others should hear of it now: by more than a factor of four, or it is nothing and was something, or the
// other way round.
func EffortNews(announced, now uint32) bool {
	return (announced == 0) != (now == 0) || now > 4*announced || announced > 4*now
}

// Capability is one task type that a provider executes.
type Capability struct {
	Type       string
	Version    string
	MaxLimits  Limits
	Attributes map[string]string
}

// Limits bound one execution; zero means the provider's policy. Memory and Output are bytes.
type Limits struct {
	Time           time.Duration
	Memory, Output uint64
}

// Invalid says why a statement is not one. Reason is for the sender and for counting; Detail for people.
type Invalid struct {
	Reason, Detail string
}

func (e *Invalid) Error() string { return e.Detail }

func invalid(reason, format string, args ...any) error {
	return &Invalid{reason, fmt.Sprintf(format, args...)}
}

// Check finds what is wrong with an announcement that came from the network, as an *Invalid.
func (a *Announcement) Check() error {
	switch {
	case !PeerIDShaped(a.PeerID):
		return invalid("PEER_ID_INVALID", "the peer id has %d bytes or is not letters and digits", len(a.PeerID))
	case a.Version == 0:
		return invalid("VERSION_INVALID", "the version is 0; the first is 1")
	case a.Role != RoleProvider:
		return invalid("ROLE_INVALID", "the role %q does not announce itself", clip(a.Role))
	case a.Interval <= 0:
		return invalid("INTERVAL_INVALID", "the interval %v is not positive", a.Interval)
	case !EffortShaped(a.Effort):
		return invalid("EFFORT_INVALID", "the effort %d is no power of two of at most %d", a.Effort, MaxEffort)
	case len(a.Addresses) > MaxAddresses:
		return invalid("ADDRESSES_TOO_MANY", "%d addresses; there may be %d", len(a.Addresses), MaxAddresses)
	}
	for i, addr := range a.Addresses {
		if !AddressShaped(addr) {
			return invalid("ADDRESS_INVALID", "address %d is no multiaddr of at most %d bytes without /p2p", i+1, MaxAddress)
		}
	}
	if a.Leaving { // last words need not say what a provider could do
		return nil
	}
	return CheckSelf(a.Capabilities, a.SealingKey)
}

// Clamped is the announcement with its interval within the sane range: whoever states less is judged by a second,
// whoever states more by a day.
func (a Announcement) Clamped() Announcement {
	a.Interval = min(max(a.Interval, MinInterval), MaxInterval)
	return a
}

// CheckSelf finds what is wrong with capabilities and a sealing key, as an *Invalid.
func CheckSelf(caps []Capability, sealingKey string) error {
	if !recipientShaped(sealingKey) {
		return invalid("SEALING_KEY_INVALID", "the sealing key is not an age recipient (age1…) of at most %d characters", maxSealingKey)
	}
	if len(caps) > MaxCapabilities {
		return invalid("CAPABILITIES_TOO_MANY", "%d capabilities; there may be %d", len(caps), MaxCapabilities)
	}
	seen := make(map[string]bool, len(caps))
	for i := range caps {
		if err := caps[i].check(); err != nil {
			return err
		}
		if seen[caps[i].Type] {
			return invalid("CAPABILITY_REPEATED", "the type %q is there twice", caps[i].Type)
		}
		seen[caps[i].Type] = true
	}
	return nil
}

func (c *Capability) check() error {
	switch {
	case !typeShaped(c.Type):
		return invalid("CAPABILITY_INVALID", "the type %q is not 1 to %d of a-z, 0-9, '.', '_' and '-'", clip(c.Type), maxType)
	case len(c.Version) > maxVersion || !printable(c.Version):
		return invalid("CAPABILITY_INVALID", "the version of %s is not at most %d printable characters", c.Type, maxVersion)
	case c.MaxLimits.Time < 0:
		return invalid("CAPABILITY_INVALID", "the time limit of %s is negative", c.Type)
	case len(c.Attributes) > MaxAttributes:
		return invalid("CAPABILITY_INVALID", "%s has %d attributes; there may be %d", c.Type, len(c.Attributes), MaxAttributes)
	}
	for k, v := range c.Attributes {
		if k == "" || len(k) > maxKey || len(v) > maxValue || !printable(k) || !printable(v) {
			return invalid("CAPABILITY_INVALID", "an attribute of %s is not a printable key of 1 to %d and a value of at most %d bytes", c.Type, maxKey, maxValue)
		}
	}
	return nil
}

// OnionOnly tells whether these are the addresses of onion services, with or without /p2p/ID, and nothing else. In anonymous mode whoever names another, which may be somebody else's, is
// not listened to: what was believed would be kept and handed on.
func OnionOnly(addresses []string) bool {
	return !slices.ContainsFunc(addresses, func(addr string) bool {
		place, _, _ := strings.Cut(addr, "/p2p/")
		return !strings.HasPrefix(place, "/onion3/") || strings.Count(place, "/") != 2
	})
}

// Has tells whether one of the types is offered; of no types, every provider offers one.
func (a *Announcement) Has(types ...string) bool {
	return len(types) == 0 || slices.ContainsFunc(a.Capabilities, func(c Capability) bool { return slices.Contains(types, c.Type) })
}

// SameSelf tells whether two statements differ in nothing but version, interval and effort.
func (a *Announcement) SameSelf(b *Announcement) bool {
	return a.PeerID == b.PeerID && a.SealingKey == b.SealingKey && a.Leaving == b.Leaving &&
		slices.Equal(a.Addresses, b.Addresses) && slices.EqualFunc(a.Capabilities, b.Capabilities, Capability.Equal)
}

// Equal compares every field.
func (c Capability) Equal(d Capability) bool {
	return c.Type == d.Type && c.Version == d.Version && c.MaxLimits == d.MaxLimits && maps.Equal(c.Attributes, d.Attributes)
}

// PeerIDShaped tells whether a string could be a peer id. What it really is, only the broker knows.
func PeerIDShaped(id string) bool {
	return len(id) > 0 && len(id) <= maxPeerID && !strings.ContainsFunc(id, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}

// AddressShaped tells whether a string could be a multiaddr without /p2p: at least one protocol and its value.
func AddressShaped(addr string) bool {
	if len(addr) > MaxAddress || !strings.HasPrefix(addr, "/") || strings.HasSuffix(addr, "/") || !ascii(addr) {
		return false
	}
	parts := strings.Split(addr[1:], "/")
	return len(parts) >= 2 && !slices.Contains(parts, "") && !slices.Contains(parts, "p2p") && !slices.Contains(parts, "ipfs")
}

// JoinAddressShaped tells whether a string could be a multiaddr that ends in /p2p/ID.
func JoinAddressShaped(addr string) bool {
	at := strings.LastIndex(addr, "/p2p/")
	return at > 0 && AddressShaped(addr[:at]) && PeerIDShaped(addr[at+len("/p2p/"):])
}

func typeShaped(s string) bool {
	return len(s) > 0 && len(s) <= maxType && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	})
}

// recipientShaped tells whether a string could be an age recipient: age1 and lowercase letters and digits.
func recipientShaped(s string) bool {
	return len(s) >= minSealingKey && len(s) <= maxSealingKey && strings.HasPrefix(s, "age1") &&
		!strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// clip keeps a stranger's words short where they are quoted.
func clip(s string) string {
	if len(s) > 32 {
		s = s[:32]
	}
	return strings.ToValidUTF8(s, "?")
}
