package home

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shallot-net/shallot/kit/fault"
)

// Format is of what processes keep in files of their own, beside stores that have a version themselves (kit/sqlstore). A version that writes them in a way that this one would misread raises it, and writes
// it into HOME/state/PROCESS/format before it does so. Without that file it is 1.
const Format = 1

// CheckFormat refuses what a newer version has written for a process (FAILED_PRECONDITION, STORE_NEWER).
func (h Home) CheckFormat(process string) error {
	path := filepath.Join(h.Dir, "state", process, "format")
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return unusable("read", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return unusable("read", path, err)
	}
	format, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || format < 1 {
		return fault.FailedPrecondition("STORE_CORRUPT", "%s is damaged: it should hold one number, the format of the files beside it; restore it from a backup", path).With("file", path)
	}
	if format > Format {
		return fault.FailedPrecondition("STORE_NEWER", "%s was written by a newer version of this program (its format is %d, this program knows up to %d): run that version, or use another home", filepath.Dir(path), format, Format).
			With("file", path)
	}
	return nil
}

// Lock makes sure that a process runs once per home. It does not wait: when another holds the lock the error
// (FAILED_PRECONDITION, HOME_IN_USE) names the file and the holder's pid. The kernel releases the lock when
// the process ends, however it ends. What a newer version has written for the process is refused, too: see CheckFormat.
func (h Home) Lock(process string) (release func(), err error) {
	if err := h.CheckFormat(process); err != nil {
		return nil, err
	}
	path := filepath.Join(h.State(process), "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) { // the directory could not be made, and this says why
		err = os.MkdirAll(filepath.Dir(path), 0o700)
		path = filepath.Dir(path)
	}
	if err != nil {
		return nil, unusable("use", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, unusable("lock", path, err)
		}
		pid, _ := io.ReadAll(io.LimitReader(f, 32))
		holder := strings.TrimSpace(string(pid))
		if holder == "" {
			holder = "unknown"
		}
		return nil, fault.FailedPrecondition("HOME_IN_USE", "another %s runs on this home: pid %s holds %s; stop it or use another home", process, holder, path).
			With("file", path).With("pid", holder)
	}
	// The pid is only for people: that it cannot be written (a full disk) does not make the lock worse.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendln(nil, os.Getpid()), 0)
	}
	return func() {
		// A child of this process that has begun and does not run its program yet has the descriptor, too: closing alone would leave it locked.
		_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
		_ = f.Close()
	}, nil
}

// maxReplicas bounds the places for replicas of one process in a home.
const maxReplicas = 64

// LockReplica is Lock for one of several processes of a name that share a home, as containers share a volume: each has a directory of its own in the process's state, the first that no
// other one has, until release is called or the process ends.
func (h Home) LockReplica(process string) (dir string, release func(), err error) {
	if err := h.CheckFormat(process); err != nil {
		return "", nil, err
	}
	for n := 1; n <= maxReplicas; n++ {
		name := filepath.Join(process, "replica-"+strconv.Itoa(n))
		dir = h.State(name)
		release, err = h.Lock(name)
		if err == nil {
			return dir, release, nil
		}
		if !errors.Is(err, fault.FailedPrecondition("HOME_IN_USE", "")) {
			return "", nil, err
		}
	}
	return "", nil, fault.FailedPrecondition("HOME_IN_USE", "%d replicas of %s run on this home, and no more may: give others a home of their own", maxReplicas, process)
}
