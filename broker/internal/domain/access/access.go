// Package access says who may be connected to this node.
package access

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
)

// Bounds of a list, in a file or in the configuration.
const (
	MaxPeers = 4096
	MaxFile  = 1 << 20
)

// Lists are who is let in and who is not. The zero value lets everybody in.
type Lists struct {
	Allow      map[string]struct{}
	Deny       map[string]struct{}
	Restricted bool // only those of Allow are let in; also when it is empty, or a list that was emptied would open the node
}

// New makes lists from peer ids; where any may be named, only those are let in.
func New(allow, deny []string) Lists {
	return Lists{Allow: set(allow), Deny: set(deny), Restricted: len(allow) > 0}
}

func set(ids []string) map[string]struct{} {
	out := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		out[id] = struct{}{}
	}
	return out
}

// With adds what others say: who is denied by either is denied.
func (l Lists) With(o Lists) Lists {
	out := Lists{Allow: map[string]struct{}{}, Deny: map[string]struct{}{}, Restricted: l.Restricted || o.Restricted}
	for _, x := range []Lists{l, o} {
		for id := range x.Allow {
			out.Allow[id] = struct{}{}
		}
		for id := range x.Deny {
			out.Deny[id] = struct{}{}
		}
	}
	return out
}

// Admits tells whether a peer is let in. A denial wins.
func (l Lists) Admits(peer string) bool {
	if _, denied := l.Deny[peer]; denied {
		return false
	}
	_, allowed := l.Allow[peer]
	return allowed || !l.Restricted
}

// Parse reads a list: a peer id a line; # begins a comment. canonical returns an id in its one usual form, or why it is none.
func Parse(data []byte, canonical func(string) (string, error)) ([]string, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("it has more than %d bytes", MaxFile)
	}
	var out []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		id, _, _ := strings.Cut(lines.Text(), "#")
		if id = strings.TrimSpace(id); id == "" {
			continue
		}
		c, err := canonical(id)
		if err != nil {
			return nil, fmt.Errorf("line %d is not a peer id such as 12D3KooW…, as `shallot peers` prints them", n)
		}
		if len(out) == MaxPeers {
			return nil, fmt.Errorf("it names more than %d peers", MaxPeers)
		}
		out = append(out, c)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("a line is too long to be a peer id: %w", err)
	}
	return out, nil
}
