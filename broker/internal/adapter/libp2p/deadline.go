package libp2p

import (
	"errors"
	"os"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-yamux/v5"
)

// deadlined is a stream whose errors say whether its own deadline has passed. The multiplexer also calls it a timeout when the whole connection has
// died: that is the link's fault, and must not be held against the peer.
type deadlined struct{ network.Stream }

// Read implements io.Reader.
func (s deadlined) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	return n, deadline(err)
}

// Write implements io.Writer.
func (s deadlined) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	return n, deadline(err)
}

// deadline names a deadline that has passed as package os does, and leaves every other error.
func deadline(err error) error {
	if err != nil && errors.Is(err, yamux.ErrTimeout) {
		return os.ErrDeadlineExceeded
	}
	return err
}
