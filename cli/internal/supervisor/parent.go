package supervisor

import (
	"fmt"
	"os"
	"sync"
)

// pipe is one that every child inherits the reading end of (lifecycle.ParentFD). It ends when this program does: the
// writing end is never used and never closed.
type pipe struct{ read, write *os.File }

var parentPipe = sync.OnceValues(func() (pipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return pipe{}, fmt.Errorf("make the pipe that tells children of this program's end: %w", err)
	}
	return pipe{r, w}, nil // the writing end must stay reachable, or it is closed
})
