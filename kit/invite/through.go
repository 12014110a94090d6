package invite

import (
	"slices"
	"strings"
)

// through is how many nodes an invite names: one may be gone when it is used.
const through = 4

// Through are the addresses that an invite names of those of several nodes, the first nodes first: of each those that others can dial, where there are any. What is no
// address is left out.
func Through(byNode [][]string) (out []string) {
	for _, addresses := range byNode[:min(len(byNode), through)] {
		good := slices.DeleteFunc(slices.Clone(addresses), func(a string) bool { return CheckAddress(a) != nil })
		if far := slices.DeleteFunc(slices.Clone(good), Loopback); len(far) > 0 {
			good = far
		}
		out = append(out, good[:min(len(good), MaxAddresses/through)]...)
	}
	return out[:min(len(out), MaxAddresses)]
}

// Loopback tells whether an address is of its own machine alone.
func Loopback(a string) bool {
	return strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/")
}
