//go:build !race

package enginetest

// Race tells that the race detector is on.
const Race = false
