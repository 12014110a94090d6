// Package filestore keeps the version counter in a file: all that metric has to remember is one number.
package filestore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/services/metric/internal/app"
)

const maxFile = 64 // bytes; a number has 20 digits

// Versions is an app.Versions in a file that one process at a time uses (see home.Lock).
type Versions struct {
	path string
	mu   sync.Mutex
	next uint64
}

var _ app.Versions = (*Versions)(nil)

// Open reads the file, where it is. A damaged one is refused and left as it is: to begin anew would repeat versions,
// which nobody would listen to.
func Open(path string) (*Versions, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Versions{path: path}, nil
	}
	if err != nil {
		return nil, failed(err, path, "read")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, failed(err, path, "read")
	}
	next, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return nil, fault.Wrap(err, codes.DataLoss, "STORE_CORRUPT", "%s is damaged: it should hold one number, the first version not used yet; restore it, or remove it, and this node's metrics are believed again once peers have forgotten the old ones", path).With("file", path)
	}
	return &Versions{path: path, next: next}, nil
}

func failed(err error, path, doing string) error {
	return fault.Wrap(err, codes.FailedPrecondition, "STORE_FAILED", "cannot %s %s: check the file, its permissions and the space on its disk", doing, path).With("file", path)
}

// Reserve takes versions; the file is on disk when it returns.
func (v *Versions) Reserve(_ context.Context, n, atLeast uint64) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	first := max(v.next, atLeast, 1)
	if first > math.MaxUint64-n {
		return 0, fault.ResourceExhausted("VERSIONS_USED_UP", "%d more versions from %d are more than there are", n, first)
	}
	if err := home.WriteFile(v.path, strconv.AppendUint(nil, first+n, 10), 0o600); err != nil {
		return 0, failed(err, v.path, "write")
	}
	v.next = first + n
	return first, nil
}
