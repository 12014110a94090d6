package files

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/access"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

// Access reads who may connect from two files of the home that people edit, HOME/peers.allow and HOME/peers.deny.
type Access struct {
	allow, deny string
	canonical   func(string) (string, error)
	last        [2]stamp // of the files as they were read
}

// stamp tells whether a file has changed.
type stamp struct {
	there bool
	at    time.Time
	size  int64
}

// NewAccess reads from the files in dir; canonical returns a peer id in its usual form.
func NewAccess(dir string, canonical func(string) (string, error)) *Access {
	return &Access{allow: filepath.Join(dir, "peers.allow"), deny: filepath.Join(dir, "peers.deny"), canonical: canonical}
}

// Load reads both files. One that is not there says nothing; one that cannot be read is an error.
func (a *Access) Load() (access.Lists, error) {
	a.last = a.stamps() // before: what is written meanwhile is read again
	allow, allowed, err := a.read(a.allow)
	if err != nil {
		return access.Lists{}, err
	}
	deny, _, err := a.read(a.deny)
	if err != nil {
		return access.Lists{}, err
	}
	lists := access.New(allow, deny)
	lists.Restricted = allowed
	return lists, nil
}

func (a *Access) stamps() (out [2]stamp) {
	for i, path := range []string{a.allow, a.deny} {
		if info, err := os.Stat(path); err == nil {
			out[i] = stamp{true, info.ModTime(), info.Size()}
		}
	}
	return out
}

func (a *Access) read(path string) (ids []string, there bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fault.FailedPrecondition("ACCESS_UNREADABLE", "cannot read the list of peers in %s", path).Because(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, access.MaxFile+1))
	if err != nil {
		return nil, false, fault.FailedPrecondition("ACCESS_UNREADABLE", "cannot read the list of peers in %s", path).Because(err)
	}
	if ids, err = access.Parse(data, a.canonical); err != nil {
		return nil, false, fault.FailedPrecondition("ACCESS_INVALID", "the list of peers in %s: %v", path, err)
	}
	return ids, true, nil
}

// Watch calls changed with the lists after each change, until ctx ends. A file that is not valid changes nothing: it is said in the
// log, and what held before goes on.
func (a *Access) Watch(ctx context.Context, every time.Duration, log *slog.Logger, changed func(access.Lists)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	seen := a.last
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := a.stamps()
		still := now == seen
		seen = now
		if !still || now == a.last { // whoever is writing still is let finish: half a list is none
			continue
		}
		lists, err := a.Load()
		if err != nil {
			log.Error("who may connect stays as it was", logging.Err(err))
			continue
		}
		log.Info("who may connect has changed", slog.Int("allowed", len(lists.Allow)), slog.Int("denied", len(lists.Deny)))
		changed(lists)
	}
}
