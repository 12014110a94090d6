package onionsvc

import (
	"strconv"
	"strings"
)

// MinVersion is the oldest tor that is used: since 0.4.7 a client shields its guards (vanguards-lite), without which whoever makes it dial often finds them.
const MinVersion = "0.4.7"

// NewEnough tells whether a tor of this version may be used. What is no version, such as "unknown", may not.
func NewEnough(version string) bool {
	have, ok := numbers(version)
	least, _ := numbers(MinVersion)
	if !ok {
		return false
	}
	for i, n := range least {
		if have[i] != n {
			return have[i] > n
		}
	}
	return true
}

// numbers are the first three of a version such as "0.4.8.13-alpha-dev (git-…)".
func numbers(version string) (n [3]int, ok bool) {
	parts := strings.SplitN(version, ".", 4)
	if len(parts) < 3 {
		return n, false
	}
	for i, p := range parts[:3] {
		if i == 2 {
			p = p[:len(p)-len(strings.TrimLeft(p, "0123456789"))]
		}
		v, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return n, false
		}
		n[i] = int(v)
	}
	return n, true
}
