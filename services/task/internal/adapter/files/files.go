// Package files keeps what is too large for the store: results, uploads, logs, and the working files of runs. Every
// file is readable by its owner alone, and appears under its name whole or not at all.
package files

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// temporary is how the names of unfinished files begin.
const temporary = ".new-"

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return named(err, "make the directory", dir)
	}
	return nil
}

// named makes a fault that names the file, for the two things that a user can mend.
func named(err error, doing, path string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.ResourceExhausted("DISK_FULL", "no space left to %s %s: free some on its file system", doing, path).Because(err).With("file", path)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fault.FailedPrecondition("FILE_UNUSABLE", "cannot %s %s: check its permissions", doing, path).Because(err).With("file", path)
	}
	return fmt.Errorf("%s %s: %w", doing, path, err)
}

// pending is a file being written.
type pending struct {
	f    *os.File
	w    *bufio.Writer
	done bool
}

func create(dir string) (*pending, error) {
	f, err := os.CreateTemp(dir, temporary+"*") // 0600
	if err != nil {
		return nil, named(err, "make a file in", dir)
	}
	return &pending{f: f, w: bufio.NewWriterSize(f, 64<<10)}, nil
}

func (p *pending) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	return n, named(err, "write", p.f.Name())
}

// keep makes the file durable under its name.
func (p *pending) keep(path string) error {
	err := p.w.Flush()
	if err == nil {
		err = p.f.Sync()
	}
	if err == nil {
		err = p.f.Close()
	}
	if err == nil {
		err = os.Rename(p.f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	p.done = err == nil
	return named(err, "write", path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Drop forgets a file that was not kept.
func (p *pending) Drop() {
	if !p.done {
		p.f.Close()
		os.Remove(p.f.Name())
		p.done = true
	}
}

// sweep removes unfinished files.
func sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary) {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// Results implements consumer.Results.
type Results struct{ dir string }

var _ consumer.Results = (*Results)(nil)

// NewResults keeps results in dir.
func NewResults(dir string) (*Results, error) { return &Results{dir}, makeDir(dir) }

type resultFile struct {
	*pending
	path string
}

func (f resultFile) Keep() error { return f.keep(f.path) }

// Create implements consumer.Results.
func (r *Results) Create(taskID string) (consumer.ResultFile, error) {
	p, err := create(r.dir)
	if err != nil {
		return nil, err
	}
	return resultFile{p, filepath.Join(r.dir, taskID)}, nil
}

// Open implements consumer.Results.
func (r *Results) Open(taskID string) (io.ReaderAt, io.Closer, error) {
	f, err := os.Open(filepath.Join(r.dir, taskID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fault.NotFound("RESULT_GONE", "the result of task %s is not in %s any more", taskID, r.dir)
	}
	if err != nil {
		return nil, nil, named(err, "read", filepath.Join(r.dir, taskID))
	}
	return f, f, nil
}

// Remove implements consumer.Results.
func (r *Results) Remove(taskID string) { os.Remove(filepath.Join(r.dir, taskID)) }

// Sweep implements consumer.Results.
func (r *Results) Sweep() { sweep(r.dir) }

// Uploads implements consumer.Uploads and grpcserver.Uploader. An upload's name is its id, its size and its hash, so
// that finding one reads nothing.
type Uploads struct {
	dir  string
	keep time.Duration
	max  int64 // bytes of all together
	used atomic.Int64
}

var (
	_ consumer.Uploads    = (*Uploads)(nil)
	_ grpcserver.Uploader = (*Uploads)(nil)
)

// NewUploads keeps each upload in dir for as long as keep after its last use, and together at most max bytes.
func NewUploads(dir string, keep time.Duration, max int64) (*Uploads, error) {
	u := &Uploads{dir: dir, keep: keep, max: max}
	err := makeDir(dir)
	sweep(dir)
	u.Expire(time.Now())
	return u, err
}

type upload struct {
	*pending
	u    *Uploads
	sum  hash.Hash
	size int64
	kept bool
}

// Create implements grpcserver.Uploader.
func (u *Uploads) Create() (grpcserver.Upload, error) {
	p, err := create(u.dir)
	if err != nil {
		return nil, err
	}
	return &upload{pending: p, u: u, sum: sha256.New()}, nil
}

func (u *upload) Write(b []byte) (int, error) {
	if u.u.used.Add(int64(len(b))) > u.u.max {
		u.u.used.Add(-int64(len(b)))
		return 0, fault.ResourceExhausted("UPLOADS_FULL", "uploads that no task has used take %s together, which is all that they may: they expire %s after their last use", domain.Bytes(u.u.max), u.u.keep)
	}
	n, err := u.pending.Write(b)
	u.u.used.Add(int64(n - len(b))) // what a full disk did not take
	_, _ = u.sum.Write(b[:n])
	u.size += int64(n)
	return n, err
}

// Keep implements grpcserver.Upload.
func (u *upload) Keep() (string, int64, [32]byte, error) {
	id, sum := app.NewID(), [32]byte(u.sum.Sum(nil))
	err := u.keep(filepath.Join(u.u.dir, id+"."+hex.EncodeToString(sum[:])))
	u.kept = err == nil
	return id, u.size, sum, err
}

// Drop forgets an upload that was not kept.
func (u *upload) Drop() {
	u.pending.Drop()
	if !u.kept {
		u.u.used.Add(-u.size)
	}
}

// Find implements consumer.Uploads.
func (u *Uploads) Find(id string) (app.Part, error) {
	none := fault.NotFound("UPLOAD_NOT_FOUND", "there is no upload %q: it expires when it is not used for %s; send it again", cut(id), u.keep).With("upload_id", cut(id))
	if len(id) != 32 || strings.ContainsAny(id, `/.*?[\`) {
		return app.Part{}, none
	}
	found, err := filepath.Glob(filepath.Join(u.dir, id+".*"))
	if err != nil || len(found) != 1 {
		return app.Part{}, none
	}
	p := app.Part{Path: found[0]}
	sum, err := hex.DecodeString(strings.TrimPrefix(filepath.Ext(p.Path), "."))
	if err != nil || len(sum) != 32 {
		return app.Part{}, none
	}
	p.SHA256 = [32]byte(sum)
	info, err := os.Stat(p.Path)
	if err != nil {
		return app.Part{}, none
	}
	p.Size = info.Size()
	now := time.Now()
	_ = os.Chtimes(p.Path, now, now) // at worst it expires while it is in use, and the task says so
	return p, nil
}

func cut(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

// Expire removes uploads that nobody has used for long enough.
func (u *Uploads) Expire(now time.Time) {
	entries, err := os.ReadDir(u.dir)
	if err != nil {
		return
	}
	used := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil:
		case now.Sub(info.ModTime()) > u.keep:
			os.Remove(filepath.Join(u.dir, e.Name()))
		default:
			used += info.Size()
		}
	}
	u.used.Store(used) // counted anew, so that no mistake lasts
}

// Workspace implements provider.Workspace.
type Workspace struct{ dir string }

// NewWorkspace makes dir empty: what a crash left there belongs to nobody.
func NewWorkspace(dir string) (*Workspace, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, named(err, "empty", dir)
	}
	return &Workspace{dir}, makeDir(dir)
}

// Make implements provider.Workspace.
func (w *Workspace) Make() (string, func(), error) {
	dir, err := os.MkdirTemp(w.dir, "run-*") // 0700
	if err != nil {
		return "", nil, named(err, "make a directory in", w.dir)
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}
