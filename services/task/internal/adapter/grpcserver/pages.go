package grpcserver

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

func pageSize(n uint32) int {
	if n == 0 {
		return defaultPage
	}
	return int(min(n, maxPage))
}

// statesOf reads a filter's states.
func statesOf[S fmt.Stringer](names []string, all []S) ([]S, error) {
	if len(names) > len(all) {
		return nil, fault.InvalidArgument("FILTER_INVALID", "states has %d entries: there are %d states", len(names), len(all))
	}
	var out []S
next:
	for _, name := range names {
		known := make([]string, len(all))
		for i, st := range all {
			if known[i] = st.String(); known[i] == name {
				out = append(out, st)
				continue next
			}
		}
		msg := "%q is not a state"
		if hint := fault.Suggest(name, known); hint != "" {
			msg += ": " + hint
		}
		return nil, fault.InvalidArgument("STATE_UNKNOWN", msg, cut(name)).With("state", cut(name))
	}
	return out, nil
}

// tokens make page tokens: the last row's place and a tag over it and the filters, without which it would be a riddle. Those of another
// process are accepted where it has the same key, as replicas do.
type tokens struct{ key [32]byte }

// newTokens takes a key of its own where it is given none: nobody keeps a token for so long as a process lives.
func newTokens(key []byte) tokens {
	var t tokens
	if copy(t.key[:], key) < len(t.key) {
		_, _ = rand.Read(t.key[:])
	}
	return t
}

const tagSize = 12

func (t tokens) tag(filters []string, b []byte) []byte {
	h := hmac.New(sha256.New, t.key[:])
	for _, f := range filters {
		h.Write([]byte(f + "\x00"))
	}
	h.Write(b)
	return h.Sum(nil)[:tagSize]
}

func (t tokens) make(filters []string, c app.Cursor) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.At.UnixMicro()))
	b = append(b, c.ID...)
	return base64.RawURLEncoding.EncodeToString(append(t.tag(filters, b), b...))
}

// cursor reads a token; an empty one is the first page.
func (t tokens) cursor(filters []string, token string) (app.Cursor, error) {
	if token == "" {
		return app.Cursor{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < tagSize+8 || len(b) > tagSize+8+64 || !hmac.Equal(b[:tagSize], t.tag(filters, b[tagSize:])) {
		return app.Cursor{}, fault.InvalidArgument("PAGE_TOKEN_INVALID", "page_token is not one that this service gave for the same filters: begin again without it")
	}
	b = b[tagSize:]
	return app.Cursor{At: time.UnixMicro(int64(binary.BigEndian.Uint64(b))), ID: string(b[8:])}, nil
}
