package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
)

// Tokens are the main token, made when its file was, and those that were added, in that order.
func (k *Keyring) Tokens() []Named {
	k.look()
	k.mu.Lock()
	made := k.seen[0].at
	k.mu.Unlock()
	out := []Named{{Name: Main, Created: made.UTC().Truncate(time.Second)}}
	for _, t := range k.keys.Load().named {
		out = append(out, Named{Name: t.Name, Created: t.Created})
	}
	return out
}

// mayManage: whoever could make tokens with one that was given to a program would not lose its rights when that is revoked.
func mayManage(c *Caller) error {
	if c.Token != Main {
		return fault.PermissionDenied("TOKEN_NOT_MAIN", "the token %s may not add or revoke tokens: do it with the one in the token file, or in a browser that `shallot dashboard` has let in", c.Token)
	}
	return nil
}

// Add makes a token under a name that has none, and returns it: it is kept nowhere. Other gateways of the node know it within a second.
func (k *Keyring) Add(c *Caller, name string) (token string, err error) {
	if err := mayManage(c); err != nil {
		return "", err
	}
	if !mtls.ValidName(name) {
		return "", fault.InvalidArgument("TOKEN_NAME", "the name of a token is 1 to 63 small letters and digits, with dots, dashes and underlines between them: such as ci or laptop-2")
	}
	token = rand.Text()
	sum := sha256.Sum256([]byte(token))
	err = k.shared.change(k.now(), func(r *records) error {
		switch {
		case name == Main || slices.ContainsFunc(r.Tokens, func(t Named) bool { return t.Name == name }):
			return fault.AlreadyExists("TOKEN_EXISTS", "there is a token %s: take another name, or revoke that one first", name)
		case len(r.Tokens) >= maxTokens:
			return fault.ResourceExhausted("TOKENS_TOO_MANY", "there are %d tokens, which is all that there can be: revoke one", len(r.Tokens))
		}
		r.Tokens = append(r.Tokens, Named{Name: name, SHA256: hex.EncodeToString(sum[:]), Created: k.now().UTC().Truncate(time.Second)})
		return nil
	})
	k.look()
	if err != nil {
		return "", err
	}
	return token, nil
}

// Revoke takes a token back: what it has open ends, and so do the sessions begun with it; at other gateways within a second. For the main one there is
// a new one in its file at once.
func (k *Keyring) Revoke(c *Caller, name string) error {
	if err := mayManage(c); err != nil {
		return err
	}
	if name == Main {
		if err := os.Remove(k.File); err != nil {
			return fault.FailedPrecondition("TOKEN_FILE", "cannot replace the token file %s: check its folder and permissions, or replace it where it comes from", k.File).Because(err)
		}
		k.look()
		return nil
	}
	err := k.shared.change(k.now(), func(r *records) error {
		names := make([]string, len(r.Tokens))
		for i, t := range r.Tokens {
			names[i] = t.Name
		}
		i := slices.Index(names, name)
		if i < 0 {
			hint := fault.Suggest(name, names)
			if hint == "" {
				hint = "GET /v1/tokens lists them"
			}
			return fault.NotFound("TOKEN_NOT_FOUND", "there is no token %q: %s", clipped(name), hint)
		}
		r.Tokens = slices.Delete(r.Tokens, i, i+1)
		return nil
	})
	k.look()
	return err
}

// clipped keeps a long name out of an error.
func clipped(s string) string { return s[:min(len(s), 63)] }
