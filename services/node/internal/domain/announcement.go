package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of an announcement: what one stranger may make this node keep.
const (
	MaxCapabilities  = 64
	MaxAddresses     = 16
	MaxAttributes    = 16
	maxName          = 64
	maxText          = 256
	maxAddress       = 256
	maxSealingKey    = 4096
	MinInterval      = time.Second
	MaxInterval      = 24 * time.Hour
	MaxAnnouncement  = 32 << 10 // bytes of the encoded payload
	MaxDiscoverReply = 64       // announcements that are looked at in one answer
)

// OnionOnly tells whether an announcement names onion addresses alone. In anonymous mode whoever names another, which may be somebody else's, is not listened to.
func (a *Announcement) OnionOnly() bool {
	return !slices.ContainsFunc(a.Addresses, func(addr string) bool { return !strings.HasPrefix(addr, "/onion3/") || strings.Count(addr, "/") != 2 })
}

// Check says what is wrong with an announcement that author signed; nil when nothing is. The texts name fields and
// never what an unknown peer wrote into them.
func (a *Announcement) Check(author string) error {
	switch {
	case !ValidPeerID(a.PeerID):
		return fmt.Errorf("peer_id is not a peer id")
	case author != a.PeerID:
		return fmt.Errorf("author is not peer_id")
	case a.Role != RoleProvider:
		return fmt.Errorf("role is not %s", RoleProvider)
	case a.Version == 0:
		return fmt.Errorf("version is 0")
	case a.Interval <= 0:
		return fmt.Errorf("interval is not positive")
	case !ValidEffort(a.Effort):
		return fmt.Errorf("effort is no power of two")
	case len(a.Addresses) > MaxAddresses:
		return fmt.Errorf("more than %d addresses", MaxAddresses)
	case len(a.Capabilities) > MaxCapabilities:
		return fmt.Errorf("more than %d capabilities", MaxCapabilities)
	}
	for _, addr := range a.Addresses {
		if len(addr) > maxAddress || len(addr) == 0 || addr[0] != '/' || !printable(addr) {
			return fmt.Errorf("an address is not a multiaddr of at most %d bytes", maxAddress)
		}
	}
	if a.Leaving { // last words need not say what a provider could do
		return nil
	}
	if a.SealingKey == "" || len(a.SealingKey) > maxSealingKey || !printable(a.SealingKey) {
		return fmt.Errorf("sealing_key is empty, too long or not printable")
	}
	seen := make(map[string]bool, len(a.Capabilities))
	for i := range a.Capabilities {
		c := &a.Capabilities[i]
		if err := c.check(); err != nil {
			return err
		}
		if seen[c.Type] {
			return fmt.Errorf("a capability is there twice")
		}
		seen[c.Type] = true
	}
	return nil
}

// Clamp keeps the stated interval within what freshness can be judged by.
func (a *Announcement) Clamp() { a.Interval = min(max(a.Interval, MinInterval), MaxInterval) }

func (c *Capability) check() error {
	if !ValidType(c.Type) {
		return fmt.Errorf("a capability's type is not a task type")
	}
	if len(c.Version) > maxName || !printable(c.Version) || c.Max.Time < 0 {
		return fmt.Errorf("a capability's version or limits are out of bounds")
	}
	if len(c.Attributes) > MaxAttributes {
		return fmt.Errorf("a capability has more than %d attributes", MaxAttributes)
	}
	for k, v := range c.Attributes {
		if len(k) > maxName || len(v) > maxText || !printable(k) || !printable(v) {
			return fmt.Errorf("an attribute of a capability is out of bounds")
		}
	}
	return nil
}

// Bounds of a price.
const (
	NonceSize = 16
	MaxEffort = 1 << 24
)

// ValidEffort tells whether n can be an effort: 0, or a power of two.
func ValidEffort(n uint32) bool { return n <= MaxEffort && n&(n-1) == 0 }

// ValidType tells whether s can name a task type: letters, digits, '.', '-' and '_', 64 at most.
func ValidType(s string) bool {
	if len(s) == 0 || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

func printable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}
