package render

import (
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

// Clean makes text from the network safe for a terminal: what moves the cursor, changes colours or hides letters is
// replaced. Program output is not passed through it, table cells are.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, s)
}

// maxCell bounds one cell of a table, in runes.
const maxCell = 200

func cell(s string) string {
	s = Clean(s)
	if r := []rune(s); len(r) > maxCell {
		return string(r[:maxCell-1]) + "…"
	}
	return s
}

// Bytes prints a size for people: 64 MiB.
func Bytes(n uint64) string { return humanize.IBytes(n) }

// Duration prints a time span for people: 1.53s, 5m10s, 3d4h.
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	case d < 24*time.Hour:
		s := d.Round(time.Second).String()
		if strings.HasSuffix(s, "m0s") {
			s = strings.TrimSuffix(s, "0s")
		}
		return strings.Replace(s, "h0m", "h", 1)
	}
	days := d / (24 * time.Hour)
	hours := (d % (24 * time.Hour)) / time.Hour
	out := humanize.Comma(int64(days)) + "d"
	if hours > 0 {
		out += humanize.Comma(int64(hours)) + "h"
	}
	return out
}

// Age prints how long ago something was; "-" when it never was.
func Age(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	d := now.Sub(then)
	if d < time.Second {
		return "now"
	}
	if d < time.Minute {
		return d.Truncate(time.Second).String() + " ago"
	}
	return Duration(d.Truncate(time.Second)) + " ago"
}

// ShortID is enough of an id to tell it from others: commands take such prefixes of task ids.
func ShortID(id string) string {
	const n = 12
	if len(id) <= n {
		return id
	}
	return id[:n]
}

// ShortPeer keeps the end of a peer id, which differs, where the beginning says only what kind of id it is.
func ShortPeer(id string) string {
	const n = 8
	if len(id) <= 2*n {
		return id
	}
	return "…" + id[len(id)-n:]
}

// Peer is what people see of a peer: its alias in anonymous mode, with its id beside it where that was asked for.
func Peer(alias, id string) string {
	switch {
	case alias == "":
		return id
	case id == "":
		return alias
	}
	return alias + " " + id
}

// PeerCell is Peer for a table, where an id without an alias is shortened.
func PeerCell(alias, id string) string {
	if alias == "" {
		return ShortPeer(id)
	}
	return Peer(alias, id)
}

// Dash stands for what is not there.
func Dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
