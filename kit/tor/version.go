package tor

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is a version of tor, by its four numbers. What follows them (-alpha, -rc, -dev) says how it was made and is left out: a feature is
// there from the first alpha on that has it.
type Version [4]int

// MinVersion is the oldest tor that is used. 0.4.7 is the first with vanguards-lite, without which the guard of an onion service can be found within days by
// who makes the service build many circuits; and it has onion client authorisation by the control port, which private networks need.
var MinVersion = Version{0, 4, 7, 1}

var (
	powSince        = Version{0, 4, 8, 1}
	powControlSince = Version{0, 4, 9, 2}
)

// Before tells whether v is older than w.
func (v Version) Before(w Version) bool { return v.Compare(w) < 0 }

// Compare is negative where v is older than w, zero where they are the same and positive otherwise.
func (v Version) Compare(w Version) int {
	for i := range v {
		if v[i] != w[i] {
			return v[i] - w[i]
		}
	}
	return 0
}

// String is the version as tor writes it.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d.%d", v[0], v[1], v[2], v[3]) }

// ParseVersion reads the answer of tor --version, or a version alone.
func ParseVersion(s string) (Version, error) {
	s, _, _ = strings.Cut(s, "\n")
	word := strings.TrimPrefix(strings.TrimSpace(s), "Tor version ")
	word, _, _ = strings.Cut(word, " ")
	word, _, _ = strings.Cut(strings.TrimSuffix(word, "."), "-")
	parts := strings.Split(word, ".")
	if len(parts) != 4 {
		return Version{}, fmt.Errorf("%q is no version of tor: four numbers with dots are", clip(s, 80))
	}
	var v Version
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("%q is no version of tor: four numbers with dots are", clip(s, 80))
		}
		v[i] = int(n)
	}
	return v, nil
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
