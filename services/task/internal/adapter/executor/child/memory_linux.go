package child

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// memory bounds what the process has beyond what it has now. RLIMIT_DATA counts private writable mappings: what is
// allocated, but neither the address space that an engine reserves, nor code. The kernel refuses what goes beyond, so
// that nothing has to watch; the compiler then aborts, which ends this process and no other.
type memory struct {
	statm *os.File // opened while /proc can be seen
	page  uint64
	hard  uint64
	last  uint64 // what was allowed last, and how often that was taken as still good
	again int
}

func openMemory() (*memory, error) {
	f, err := os.Open("/proc/self/statm")
	if err != nil {
		return nil, fmt.Errorf("cannot see how much memory this process has: %w", err)
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &l); err != nil {
		return nil, fmt.Errorf("cannot read the limit on memory: %w", err)
	}
	return &memory{f, uint64(os.Getpagesize()), l.Max, 0, 0}, nil //nolint:gosec // positive
}

// sameFor is for how many runs in a row a bound is left as it is: what small runs leave behind does not count.
const sameFor = 32

// allow sets the bound to what there is now and more bytes.
func (m *memory) allow(more uint64) error {
	if m.again++; more == m.last && m.again < sameFor {
		return nil
	}
	var buf [128]byte
	n, err := unix.Pread(int(m.statm.Fd()), buf[:], 0)
	if n <= 0 {
		return fmt.Errorf("cannot see how much memory this process has: %w", err)
	}
	fields := bytes.Fields(buf[:n])
	if len(fields) < 6 {
		return fmt.Errorf("cannot read %q", buf[:n])
	}
	pages, err := strconv.ParseUint(string(fields[5]), 10, 64)
	if err != nil {
		return fmt.Errorf("cannot read %q: %w", fields[5], err)
	}
	limit := uint64(math.MaxUint64)
	if now := pages * m.page; more < limit-now {
		limit = now + more
	}
	limit = min(limit, m.hard)
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: limit, Max: m.hard}); err != nil {
		return fmt.Errorf("cannot limit memory to %d bytes: %w", limit, err)
	}
	m.last, m.again = more, 0
	return nil
}
