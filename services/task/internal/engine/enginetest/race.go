//go:build race

package enginetest

// Race tells that the race detector is on. It looks at every word when a stack grows, and an engine in Go grows a
// program's stack by copying it, which then takes seconds, with every goroutine stopped.
const Race = true
