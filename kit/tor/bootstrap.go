package tor

import (
	"strconv"
	"strings"
)

// Bootstrap is how far tor has come with joining its network.
type Bootstrap struct {
	Percent int    // 0 to 100; at 100 it can be used
	Tag     string // what it waits for, a word of tor's: conn_dir, loading_descriptors, done
	Summary string // the same in words
}

// Bounds of what is kept of one line of tor's.
const (
	maxTag     = 64
	maxSummary = 200
)

// ParseBootstrap reads a line of tor's log such as "… [notice] Bootstrapped 45% (requesting_descriptors): Asking for relay descriptors". It is false for
// every other line.
func ParseBootstrap(line string) (Bootstrap, bool) {
	level, rest, ok := severity(line)
	if !ok || level != "notice" {
		return Bootstrap{}, false
	}
	rest, ok = strings.CutPrefix(rest, "Bootstrapped ")
	if !ok {
		return Bootstrap{}, false
	}
	digits, rest, ok := strings.Cut(rest, "%")
	n, err := strconv.ParseUint(digits, 10, 8)
	if !ok || err != nil || n > 100 {
		return Bootstrap{}, false
	}
	b := Bootstrap{Percent: int(n)}
	if in, ok := strings.CutPrefix(rest, " ("); ok {
		if tag, after, ok := strings.Cut(in, ")"); ok {
			b.Tag, rest = clip(tag, maxTag), after
		}
	}
	b.Summary = clip(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest), ":")), maxSummary)
	return b, true
}

// severity splits a line of tor's log into its level (debug, info, notice, warn, err) and its text.
func severity(line string) (level, text string, ok bool) {
	_, rest, ok := strings.Cut(line, "[")
	if !ok {
		return "", "", false
	}
	level, text, ok = strings.Cut(rest, "] ")
	switch level {
	case "debug", "info", "notice", "warn", "err":
		return level, strings.TrimSpace(text), ok
	}
	return "", "", false
}
