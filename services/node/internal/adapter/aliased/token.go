package aliased

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/fault"
)

// tokens encrypts page tokens: some of them are the peer id that a page ends with.
type tokens struct{ aead cipher.AEAD }

func newTokens(key *alias.Key) *tokens {
	block, err := aes.NewCipher(key.Derive("page tokens"))
	if err == nil {
		var aead cipher.AEAD
		if aead, err = cipher.NewGCMWithRandomNonce(block); err == nil {
			return &tokens{aead}
		}
	}
	panic(err) // only of a key of the wrong size
}

func (t *tokens) seal(token string) string {
	if token == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(t.aead.Seal(nil, nil, []byte(token), nil))
}

func (t *tokens) open(sealed string) (string, error) {
	if sealed == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err == nil {
		raw, err = t.aead.Open(nil, nil, raw, nil)
	}
	if err != nil {
		return "", fault.InvalidArgument("PAGE_TOKEN_INVALID", "page_token is not one that this node has given: begin again without one")
	}
	return string(raw), nil
}
