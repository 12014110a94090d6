//go:build !cgo

package bench

func newBareEngine() (bareEngine, error) { return nil, errNoEngine }
