package supervisor

import (
	"fmt"
	"os"
	"sync"
)

// parentPipe returns the reading end of a pipe that ends when this program does: every child inherits it
// (lifecycle.ParentFD). The writing end is never used and never closed.
var parentPipe = sync.OnceValues(func() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the pipe that tells children of this program's end: %w", err)
	}
	keepOpen = w
	return r, nil
})

var keepOpen *os.File
