package backup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// repositoryFolder is the broker's content, which has a way of its own to be copied.
const repositoryFolder = "state/broker/repository"

// skipped tells what of a home no backup has, by its path with slashes.
func skipped(rel string, dir bool) bool {
	name := path.Base(rel)
	switch {
	case strings.HasPrefix(name, "."): // files that are being written
		return true
	case dir:
		switch rel {
		case "run", "logs", "tls", "pki", "join": // sockets; what processes log; certificates of a day, which the authority in state/pki makes anew; addresses for others
			return true
		case "state/task/work", "state/task/parts", "state/task/wasm": // of running tasks; caches of what others have, and of compiled programs
			return true
		case repositoryFolder:
			return true
		}
		// What replicas of a service have beside their database is work and caches.
		return path.Dir(path.Dir(rel)) == "state" && strings.HasPrefix(name, "replica-")
	case strings.HasPrefix(rel, "tor/"):
		return rel != "tor/data/state" // the guards of its own tor; the rest tor makes anew
	case name == "lock" || name == "clients.lock", rel == "state/restoring.json", rel == "dev.json":
		return true
	case strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-shm") || strings.HasSuffix(name, "-journal"): // of stores
		return true
	}
	return false
}

// found is a file of a home.
type found struct {
	rel      string
	size     int64
	modified time.Time
}

// walk lists the files that a backup has, links followed. What goes while it looks is not there.
func walk(ctx context.Context, dir string) ([]found, error) {
	w := walker{ctx: ctx, root: dir}
	return w.files, w.folder("", 0)
}

type walker struct {
	ctx   context.Context
	root  string
	files []found
}

func (w *walker) folder(rel string, depth int) error {
	full := filepath.Join(w.root, filepath.FromSlash(rel))
	if depth > maxDepth {
		return fault.FailedPrecondition("BACKUP_UNUSABLE", "%s is %d folders deep in the home, and no node makes such: remove it", full, depth)
	}
	entries, err := os.ReadDir(full)
	if errors.Is(err, fs.ErrNotExist) && depth > 0 {
		return nil
	}
	if err != nil {
		return unusable(full, "read", err)
	}
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			return fault.From(context.Cause(w.ctx))
		}
		if err := w.entry(path.Join(rel, e.Name()), depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(rel string, depth int) error {
	full := filepath.Join(w.root, filepath.FromSlash(rel))
	info, err := os.Stat(full)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return unusable(full, "look at", err)
	case skipped(rel, info.IsDir()):
		return nil
	case info.IsDir():
		return w.folder(rel, depth+1)
	case !info.Mode().IsRegular(): // sockets
		return nil
	}
	if len(w.files) == maxFiles {
		return fault.ResourceExhausted("BACKUP_TOO_LARGE", "%s has more than %d files: let the node forget old tasks first", w.root, maxFiles)
	}
	w.files = append(w.files, found{rel, info.Size(), info.ModTime()})
	return nil
}
