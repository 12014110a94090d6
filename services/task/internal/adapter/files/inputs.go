package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Inputs implements consumer.Inputs: a folder a job, with files named after their hashes. They were uploads, whose bytes are on disk
// already, so that owning one moves its name alone.
type Inputs struct {
	dir     string
	uploads *Uploads
}

var _ consumer.Inputs = (*Inputs)(nil)

// NewInputs keeps the inputs of jobs in dir, which is on the file system of the uploads.
func NewInputs(dir string, uploads *Uploads) (*Inputs, error) {
	return &Inputs{dir, uploads}, makeDir(dir)
}

// Own implements consumer.Inputs.
func (in *Inputs) Own(jobID, uploadID string) (app.Part, error) {
	p, err := in.uploads.Find(uploadID)
	if err != nil {
		return app.Part{}, err
	}
	folder := filepath.Join(in.dir, jobID)
	if err := makeDir(folder); err != nil {
		return app.Part{}, err
	}
	path := in.Path(jobID, p.SHA256)
	if err := os.Link(p.Path, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return app.Part{}, named(err, "make", path)
	}
	err = syncDir(folder)
	if err == nil {
		err = syncDir(in.dir)
	}
	if err != nil {
		return app.Part{}, named(err, "write", folder)
	}
	in.uploads.remove(p)
	p.Path = path
	return p, nil
}

// Path implements consumer.Inputs.
func (in *Inputs) Path(jobID string, sum domain.Hash) string {
	return filepath.Join(in.dir, jobID, sum.String())
}

// Remove implements consumer.Inputs.
func (in *Inputs) Remove(jobID string) {
	if domain.ValidID(jobID) {
		os.RemoveAll(filepath.Join(in.dir, jobID))
	}
}

// Sweep implements consumer.Inputs.
func (in *Inputs) Sweep(keep func(jobID string) bool) {
	entries, err := os.ReadDir(in.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !keep(e.Name()) {
			in.Remove(e.Name())
		}
	}
}

// remove forgets an upload whose file has another name now.
func (u *Uploads) remove(p app.Part) {
	if os.Remove(p.Path) == nil {
		u.used.Add(-p.Size)
	}
}
