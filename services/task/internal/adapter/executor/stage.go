package executor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/fence"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// maxInline is how many bytes of parts travel in the message; what is beyond becomes a file.
const maxInline = 1 << 20

// stage puts a run's parts where its child can read them, and tells the child where. The child sees its own directory
// only, and gets links: nothing is copied on one file system. Links are for children that cannot write below DirRun,
// whatever happens in them; others get copies.
type stage struct {
	p      *process
	files  bool
	inline int64
}

func (p *process) confined() bool {
	held := strings.Split(p.about.GetAttributes()[wire.AttrFence], "+")
	for _, f := range held {
		if f == fence.Landlock {
			return true
		}
	}
	return false
}

func (s *stage) path(name string) string { return filepath.Join(s.p.root, wire.DirRun, name) }

// add stages one part under a name relative to DirRun.
func (s *stage) add(part app.Part, as string) (*executorv1.Part, error) {
	out := &executorv1.Part{Name: part.Name, Size: uint64(part.Size), Sha256: part.SHA256[:]} //nolint:gosec // checked by validate
	input := strings.HasPrefix(part.Name, wire.PrefixInput)
	if part.Path == "" && !input && s.inline+int64(len(part.Inline)) <= maxInline {
		s.inline += int64(len(part.Inline))
		out.Source = &executorv1.Part_Inline{Inline: part.Inline}
		return out, nil
	}
	s.files = true
	to := s.path(as)
	if input {
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return nil, fmt.Errorf("cannot place %s for the program: %w", part.Name, err)
		}
	}
	var err error
	if part.Path == "" {
		err = os.WriteFile(to, part.Inline, 0o400)
	} else {
		err = linkOrCopy(part.Path, to, s.p.confined())
	}
	if err != nil {
		return nil, fmt.Errorf("cannot place %s for the program: %w", part.Name, err)
	}
	out.Source = &executorv1.Part_Path{Path: wire.DirRun + "/" + filepath.ToSlash(as)}
	return out, nil
}

// clear removes what add placed.
func (s *stage) clear() error {
	if !s.files {
		return nil
	}
	s.files = false
	entries, err := os.ReadDir(filepath.Join(s.p.root, wire.DirRun))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(s.path(e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func linkOrCopy(from, to string, link bool) error {
	if link {
		err := os.Link(from, to)
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			return err
		}
		// Another file system, or one without links.
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
