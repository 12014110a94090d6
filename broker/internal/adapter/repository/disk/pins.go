package disk

import (
	"bytes"
	"encoding/base64"

	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// Pins implements app.Store.
func (s *Store) Pins(cid, owner, cursor string, limit int) (pins []content.Pin, next string, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, "", content.ErrClosed
	}
	var prefix []byte
	switch {
	case cid != "" && owner != "":
		prefix = pinKey(content.Pin{CID: cid, Owner: owner})
	case cid != "":
		prefix = []byte(prefixPin + cid + "\x00")
	case owner != "":
		prefix = []byte(prefixOwner + owner + "\x00")
	default:
		prefix = []byte(prefixPin)
	}
	r := util.BytesPrefix(prefix)
	if cursor != "" {
		after, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil || !bytes.HasPrefix(after, prefix) {
			return nil, "", &content.InvalidError{Field: "page token", Value: cursor, Why: "it is not one that this list returned"}
		}
		r.Start = append(after, 0)
	}
	it := s.db.NewIterator(r, nil)
	defer it.Release()
	for it.Next() {
		if cid != "" && owner != "" && !bytes.Equal(it.Key(), prefix) {
			break
		}
		if len(pins) == limit {
			next = base64.RawURLEncoding.EncodeToString(lastKey(pins[limit-1], prefix))
			break
		}
		p, err := decodePin(it.Key(), it.Value())
		if err != nil {
			return nil, "", &content.TornError{Path: s.index, Err: err}
		}
		pins = append(pins, p)
	}
	if err := it.Error(); err != nil {
		return nil, "", s.readFailed(err)
	}
	return pins, next, nil
}

func lastKey(p content.Pin, prefix []byte) []byte {
	if string(prefix[:1]) == prefixOwner {
		return ownerKey(p)
	}
	return pinKey(p)
}
