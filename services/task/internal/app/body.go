package app

import (
	"bytes"
	"io"
)

// Body is bytes to be read and closed.
type Body struct {
	Size int64
	io.ReadSeeker
	io.Closer
}

// BytesBody is a body in memory.
func BytesBody(b []byte) *Body {
	return &Body{Size: int64(len(b)), ReadSeeker: bytes.NewReader(b), Closer: io.NopCloser(nil)}
}
