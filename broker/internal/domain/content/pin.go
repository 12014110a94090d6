package content

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Limits of what one request may ask for.
const (
	MaxOwner = 128 // bytes
	MaxKeep  = 10 * 365 * 24 * time.Hour
	MaxSmall = 256 << 10 // bytes of a file that is one raw block by PutMany
	MaxBlock = 2 << 20   // bytes; what peers send in one block at most
	MaxPage  = 1000      // pins

	MaxReaders = 16  // of one pin
	MaxPersona = 128 // bytes of a persona's name
	MaxPeerID  = 128 // bytes of a peer id as text
)

// Pin keeps a DAG, for one owner: content stays as long as anyone pins it. It is the same pin when content and owner are.
type Pin struct {
	CID       string // canonical: version 1, base32
	Owner     string
	ExpiresAt time.Time // zero: until it is lifted
	// Readers are the peers that may have the content from Persona's host, as long as the pin lasts. Only anonymous mode has them: in
	// open mode everybody may have everything.
	Persona string
	Readers []string
}

// Expired says whether the pin has ended.
func (p Pin) Expired(now time.Time) bool { return !p.ExpiresAt.IsZero() && !now.Before(p.ExpiresAt) }

// NewPin checks what a caller asks for. A keep of 0 keeps until the pin is lifted.
func NewPin(cid, owner string, keep time.Duration, now time.Time) (Pin, error) {
	p := Pin{CID: cid, Owner: owner}
	if err := CheckOwner(owner); err != nil {
		return p, err
	}
	switch {
	case keep < 0:
		return p, &InvalidError{Field: "keep", Value: keep.String(), Why: "it must not be negative; leave it out to keep until Unpin"}
	case keep > MaxKeep:
		return p, &InvalidError{Field: "keep", Value: keep.String(), Why: "ten years at most; leave it out to keep until Unpin"}
	case keep > 0:
		p.ExpiresAt = now.Add(keep).Truncate(time.Millisecond)
	}
	return p, nil
}

// GrantedTo is the pin with readers. Whether they are peer ids is for those to check who know peers.
func (p Pin) GrantedTo(persona string, readers []string) (Pin, error) {
	switch {
	case len(readers) > MaxReaders:
		return p, &InvalidError{Field: "readers", Value: strconv.Itoa(len(readers)), Why: fmt.Sprintf("%d peers at most may be named: pin it for another owner as well", MaxReaders)}
	case len(persona) > MaxPersona:
		return p, &InvalidError{Field: "persona", Value: persona[:16] + "…", Why: fmt.Sprintf("it has %d bytes and may have %d", len(persona), MaxPersona)}
	}
	for _, r := range readers {
		if r == "" || len(r) > MaxPeerID {
			return p, &InvalidError{Field: "readers", Value: r[:min(len(r), 16)], Why: "it is not a peer id"}
		}
	}
	if len(readers) > 0 {
		p.Persona, p.Readers = persona, readers
	}
	return p, nil
}

// CheckOwner holds for owners of pins: printable, not empty, 128 bytes at most.
func CheckOwner(owner string) error {
	switch {
	case owner == "":
		return &InvalidError{Field: "owner", Value: owner, Why: "it must not be empty"}
	case len(owner) > MaxOwner:
		return &InvalidError{Field: "owner", Value: owner[:16] + "…", Why: fmt.Sprintf("it has %d bytes and may have %d", len(owner), MaxOwner)}
	case !utf8.ValidString(owner):
		return &InvalidError{Field: "owner", Value: fmt.Sprintf("%q", owner), Why: "it is not UTF-8"}
	}
	for _, r := range owner {
		if r < ' ' || r == 0x7f {
			return &InvalidError{Field: "owner", Value: fmt.Sprintf("%q", owner), Why: "it has control characters"}
		}
	}
	return nil
}
