// Package invite is what one needs to join a private network, as one line of text that survives a mail or a chat: the network's key
// and addresses to join through. Whoever has the line is in.
package invite

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
)

// The form is PREFIX VERSION "-" base64url(payload, checksum). The payload is the key, then each address with its length in two bytes before it; the
// checksum is the beginning of the hash of prefix, version and payload. Version 1 is for a network in open mode and version 2 for an anonymous one, so that
// what does not know of these never uses such a key in the open.
const (
	prefix           = "shallot"
	versionOpen      = "1"
	versionAnonymous = "2"

	KeySize      = 32
	MaxAddresses = 16
	MaxAddress   = 256
	checksum     = 6
	maxText      = 16 << 10
)

// Invite is what the line holds.
type Invite struct {
	Key       [KeySize]byte
	Addresses []string // multiaddrs that end in /p2p/ID
	Anonymous bool     // all of them are onion addresses then, and none otherwise
}

func (i Invite) version() string {
	if i.Anonymous {
		return versionAnonymous
	}
	return versionOpen
}

// check tells whether an address is one of the network's mode.
func (i Invite) check(a string) error {
	if err := CheckAddress(a); err != nil {
		return err
	}
	switch onion := strings.HasPrefix(a, "/onion3/"); {
	case i.Anonymous && !onion:
		return fault.InvalidArgument("ADDRESS_INVALID", "%.80q is no onion address, and the nodes of an anonymous network dial no other: give one that begins with /onion3/", a)
	case !i.Anonymous && onion:
		return fault.InvalidArgument("ADDRESS_INVALID", "%.80q is the address of an anonymous node, and the network is in open mode: give one such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…", a)
	}
	return nil
}

// NewKey makes the key of a new network.
func NewKey() (k [KeySize]byte) {
	_, _ = rand.Read(k[:]) // it never fails
	return k
}

// KeyFile is a key in the form of a swarm key file.
func KeyFile(k [KeySize]byte) []byte {
	return []byte("/key/swarm/psk/1.0.0/\n/base16/\n" + hex.EncodeToString(k[:]) + "\n")
}

// ParseKeyFile reads what KeyFile made.
func ParseKeyFile(b []byte) (k [KeySize]byte, err error) {
	rest, ok := strings.CutPrefix(string(b), "/key/swarm/psk/1.0.0/\n/base16/\n")
	raw, herr := hex.DecodeString(strings.TrimSpace(rest))
	if !ok || herr != nil || len(raw) != KeySize {
		return k, fault.FailedPrecondition("NETWORK_KEY_BROKEN", "it is torn, or not a swarm key in base16")
	}
	return [KeySize]byte(raw), nil
}

// Encode makes the line.
func (i Invite) Encode() (string, error) {
	if len(i.Addresses) == 0 || len(i.Addresses) > MaxAddresses {
		return "", fault.InvalidArgument("INVITE_ADDRESSES", "an invite has 1 to %d addresses to join through, not %d", MaxAddresses, len(i.Addresses))
	}
	payload := append([]byte(nil), i.Key[:]...)
	for _, a := range i.Addresses {
		if err := i.check(a); err != nil {
			return "", err
		}
		payload = append(payload, byte(len(a)>>8), byte(len(a)))
		payload = append(payload, a...)
	}
	return prefix + i.version() + "-" + base64.RawURLEncoding.EncodeToString(append(payload, sum(i.version(), payload)...)), nil
}

func sum(version string, payload []byte) []byte {
	s := sha256.Sum256(append([]byte(prefix+version), payload...))
	return s[:checksum]
}

// CheckAddress tells whether a text can be an address to join through. What it means is the broker's to know.
func CheckAddress(a string) error {
	_, id, ok := strings.Cut(a, "/p2p/")
	printable := strings.IndexFunc(a, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' || r == '#' }) < 0
	if len(a) > MaxAddress || !strings.HasPrefix(a, "/") || !ok || id == "" || strings.Contains(id, "/") || !printable {
		return fault.InvalidArgument("ADDRESS_INVALID", "%.80q is no multiaddr that ends in /p2p/ID, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…", a)
	}
	return nil
}

func damaged(why string) error {
	return fault.InvalidArgument("INVITE_DAMAGED", "the invite is damaged (%s): copy the whole line again, from shallot to its last character", why)
}

// Decode reads a line. White space in it, as programs that wrap lines put it there, is no harm.
func Decode(text string) (Invite, error) {
	if len(text) > maxText {
		return Invite{}, damaged("it is too long")
	}
	text = strings.Join(strings.Fields(text), "")
	body, ok := strings.CutPrefix(text, prefix)
	v, body, cut := strings.Cut(body, "-")
	switch {
	case !ok || !cut || v == "" || strings.Trim(v, "0123456789") != "":
		return Invite{}, fault.InvalidArgument("INVITE_INVALID", "that is not an invite: one is a line that begins with %s%s-, as 'shallot network invite' prints it", prefix, versionOpen)
	case v != versionOpen && v != versionAnonymous:
		return Invite{}, fault.InvalidArgument("INVITE_VERSION", "the invite has version %.9s and this shallot knows versions %s and %s: update the older of the two", v, versionOpen, versionAnonymous)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return Invite{}, damaged("a character cannot be in an invite, or some are missing")
	}
	if len(raw) < KeySize+checksum {
		return Invite{}, damaged("it is too short")
	}
	payload := raw[:len(raw)-checksum]
	if string(sum(v, payload)) != string(raw[len(payload):]) {
		return Invite{}, damaged("its checksum is wrong")
	}
	return decode(payload, v == versionAnonymous)
}

func decode(payload []byte, anonymous bool) (out Invite, err error) {
	out.Anonymous = anonymous
	out.Key = [KeySize]byte(payload)
	for rest := payload[KeySize:]; len(rest) > 0; {
		if len(rest) < 2 {
			return Invite{}, damaged("an address is cut off")
		}
		n := int(rest[0])<<8 | int(rest[1])
		if rest = rest[2:]; n > len(rest) {
			return Invite{}, damaged("an address is cut off")
		}
		a := string(rest[:n])
		if err := out.check(a); err != nil {
			return Invite{}, err
		}
		out.Addresses = append(out.Addresses, a)
		rest = rest[n:]
	}
	if len(out.Addresses) == 0 || len(out.Addresses) > MaxAddresses {
		return Invite{}, damaged(fmt.Sprintf("it has %d addresses", len(out.Addresses)))
	}
	return out, nil
}
