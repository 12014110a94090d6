package alias

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base32"
	"regexp"
	"strings"

	"github.com/mr-tron/base58"
)

const base58Digits = `[1-9A-HJ-NP-Za-km-z]`

// identities finds what says where or who a peer is: multiaddrs, peer ids, and the names of onion services.
var identities = regexp.MustCompile(`/(?:ip4|ip6|ip6zone|dns|dns4|dns6|dnsaddr|onion3?|p2p)/[^\s"'\\,;()\[\]]+` +
	`|12D3Koo` + base58Digits + `*|16Uiu2` + base58Digits + `{20,}` +
	`|\b[a-z2-7]{56}\b(?:\.onion)?(?::\d+)?|\b[a-z2-7]{16}\.onion(?::\d+)?`)

// What is put in place of an identity of which there is no whole.
const (
	somebody  = "(a peer)"
	somewhere = "(an address)"
)

// Text returns s with the alias in place of every peer id and of every address that says whose it is. Other addresses are left out.
func (k *Key) Text(s string) string {
	if !mayName(s) {
		return s
	}
	return identities.ReplaceAllStringFunc(s, k.replace)
}

// peerIDLength is that of the id of an Ed25519 key.
const peerIDLength = 52

func (k *Key) replace(found string) string {
	switch {
	case strings.HasSuffix(found, ":") || strings.HasSuffix(found, "."): // of the sentence
		return k.replace(found[:len(found)-1]) + found[len(found)-1:]
	case strings.HasPrefix(found, "/"):
		if i := strings.LastIndex(found, "/p2p/"); i >= 0 && strings.HasPrefix(found[i+len("/p2p/"):], "12D3Koo") {
			return k.replace(found[i+len("/p2p/"):])
		}
		if name, ok := strings.CutPrefix(found, "/onion3/"); ok {
			return k.onion(name)
		}
		return somewhere
	case strings.HasPrefix(found, "12D3Koo"):
		if len(found) != peerIDLength { // it was cut off, or something is stuck to it
			return somebody
		}
		return k.Of(found)
	case strings.HasPrefix(found, "16Uiu2"):
		return k.Of(found)
	}
	return k.onion(found)
}

// onion names whom an onion service belongs to: the name of one is its peer's key.
func (k *Key) onion(name string) string {
	const chars, key = 56, ed25519.PublicKeySize
	if len(name) < chars {
		return somewhere
	}
	raw, err := base32.StdEncoding.DecodeString(strings.ToUpper(name[:chars]))
	if err != nil {
		return somewhere
	}
	return k.Of(base58.Encode(append(bytes.Clone(inlineKey), raw[:key]...)))
}

// inlineKey is what a peer id begins with that holds its Ed25519 key.
var inlineKey = []byte{0x00, 0x24, 0x08, 0x01, 0x12, 0x20}

// mayName spares most texts the pattern.
func mayName(s string) bool {
	if len(s) >= 56 {
		return true
	}
	for _, mark := range []string{"12D3Koo", "16Uiu2", ".onion", "/p2p/", "/onion", "/ip", "/dns"} {
		if strings.Contains(s, mark) {
			return true
		}
	}
	return false
}
