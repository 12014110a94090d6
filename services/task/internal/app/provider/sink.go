package provider

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/treepath"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Bounds of what a run may give.
const (
	inMemory   = 64 << 10 // bytes of all outputs together; what is beyond goes to files
	maxOutputs = 1000     // bodies, stdout and stderr included
)

// sink takes a run's output: a little in memory, the rest in files.
type sink struct {
	workspace Workspace
	limit     int64
	logs      *logStream
	progress  func(domain.Progress) // set before the run

	bodies  map[string]*spool
	size    int64
	memory  int
	files   int
	dir     string
	rm      func()
	started time.Time
	over    string // why the output limit was hit
	err     error  // this provider's own fault
	lost    bool   // err is that there was no room for the output
}

// spool is one body.
type spool struct {
	name string
	size int64
	sum  hash.Hash
	buf  bytes.Buffer
	file *os.File
}

func newSink(w Workspace, limit int64, logs *logStream) *sink {
	return &sink{workspace: w, limit: limit, logs: logs, bodies: make(map[string]*spool, 2)}
}

// Started notes when the program began.
func (s *sink) Started() { s.started = time.Now() }

// Progress notes how far the program is.
func (s *sink) Progress(fraction float64, text string) {
	if s.progress != nil {
		s.progress(domain.Progress{Fraction: fraction, Text: text})
	}
}

func (s *sink) startedAt() time.Time { return s.started }

func (s *sink) total() int64 { return s.size }

var errOutput = errors.New("the output is at its limit")

// Output takes a piece of a body.
func (s *sink) Output(name string, data []byte) error {
	if s.err != nil {
		return s.err
	}
	b := s.bodies[name]
	if b == nil {
		if !validBody(name) {
			s.err = fmt.Errorf("the executor gave a body with the name %q", name)
			return s.err
		}
		if len(s.bodies) >= maxOutputs {
			s.over = fmt.Sprintf("the program wrote more than %d files", maxOutputs-2)
			return errOutput
		}
		b = &spool{name: name, sum: sha256.New()}
		s.bodies[name] = b
	}
	if room := s.limit - s.size; int64(len(data)) > room {
		s.over = "the program's output reached its limit of " + domain.Bytes(s.limit)
		data = data[:max(room, 0)]
	}
	if err := s.write(b, data); err != nil {
		s.err, s.lost = fmt.Errorf("keep the output: %w", err), true
		return s.err
	}
	if name == "stderr" {
		s.logs.write(data)
	}
	if s.over != "" {
		return errOutput
	}
	return nil
}

func (s *sink) write(b *spool, data []byte) error {
	_, _ = b.sum.Write(data)
	b.size += int64(len(data))
	s.size += int64(len(data))
	if b.file == nil && s.memory+len(data) > inMemory {
		if err := s.spill(b); err != nil {
			return err
		}
	}
	if b.file != nil {
		_, err := b.file.Write(data)
		return err
	}
	s.memory += len(data)
	b.buf.Write(data)
	return nil
}

// spill moves a body from memory to a file.
func (s *sink) spill(b *spool) (err error) {
	if s.dir == "" {
		if s.dir, s.rm, err = s.workspace.Make(); err != nil {
			return err
		}
	}
	s.files++
	b.file, err = os.OpenFile(filepath.Join(s.dir, "out-"+strconv.Itoa(s.files)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	_, err = b.file.Write(b.buf.Bytes())
	s.memory -= b.buf.Len()
	b.buf = bytes.Buffer{}
	return err
}

func (s *sink) remove() {
	for _, b := range s.bodies {
		if b.file != nil {
			b.file.Close()
		}
	}
	if s.rm != nil {
		s.rm()
	}
}

// order is how bodies follow each other in a result: stdout and stderr, then files by name.
func (s *sink) order() []*spool {
	out := make([]*spool, 0, len(s.bodies)+2)
	for _, name := range []string{"stdout", "stderr"} {
		b := s.bodies[name]
		if b == nil {
			b = &spool{name: name, sum: sha256.New()}
		}
		out = append(out, b)
	}
	for name, b := range s.bodies {
		if name != "stdout" && name != "stderr" {
			out = append(out, b)
		}
	}
	slices.SortFunc(out[2:], func(a, b *spool) int { return strings.Compare(a.name, b.name) })
	return out
}

func (b *spool) part() domain.Part {
	return domain.Part{Name: b.name, Size: b.size, SHA256: domain.Hash(b.sum.Sum(nil))}
}

func (b *spool) copyTo(w io.Writer) error {
	if b.file == nil {
		_, err := w.Write(b.buf.Bytes())
		return err
	}
	_, err := io.Copy(w, io.NewSectionReader(b.file, 0, b.size))
	return err
}

func validBody(name string) bool {
	if name == "stdout" || name == "stderr" {
		return true
	}
	p, ok := strings.CutPrefix(name, "output:")
	return ok && treepath.Check(p) == nil
}
