package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
)

// maxLog is how much of a log is kept: when a file has twice that, its first half goes.
const maxLog = 1 << 20

// Logs implements consumer.Logs. A log is a file NAME@OFFSET whose first byte is byte OFFSET of the program's stderr; the name
// says it because a rename is atomic. Names are those of a task and an attempt, TASK.N.
type Logs struct {
	dir string
	mu  sync.Mutex
	// What is in dir, so that a task without a log, as most are, costs no look at it: the offsets by name, the names by task.
	base  map[string]int64
	names map[string][]string
}

var _ consumer.Logs = (*Logs)(nil)

// NewLogs keeps logs in dir.
func NewLogs(dir string) (*Logs, error) {
	sweep(dir)
	l := &Logs{dir: dir, base: make(map[string]int64), names: make(map[string][]string)}
	if err := makeDir(dir); err != nil {
		return l, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return l, named(err, "read", dir)
	}
	for _, f := range files {
		name, offset, _ := strings.Cut(f.Name(), "@")
		n, err := strconv.ParseInt(offset, 10, 64)
		if err != nil || n < 0 || !valid(name) {
			continue
		}
		if old, ok := l.base[name]; ok { // after a crash within a trim: the later has all that the other has to give
			os.Remove(l.path(name, min(old, n)))
			n = max(old, n)
		}
		l.note(name, n)
	}
	return l, nil
}

func taskOf(name string) string {
	task, _, _ := strings.Cut(name, ".")
	return task
}

// note remembers where a log begins. l.mu is held.
func (l *Logs) note(name string, base int64) {
	if _, ok := l.base[name]; !ok {
		t := taskOf(name)
		l.names[t] = append(l.names[t], name)
	}
	l.base[name] = base
}

// find returns a log's file and its offset; "" when there is none. l.mu is held.
func (l *Logs) find(name string) (path string, base int64) {
	base, ok := l.base[name]
	if !ok {
		return "", 0
	}
	return l.path(name, base), base
}

func valid(name string) bool {
	return name != "" && len(name) < 100 && !strings.ContainsAny(name, `/@*?[\`) && name[0] != '.'
}

// Append implements consumer.Logs. A gap begins the log anew: what was before it is older than what is kept of it.
func (l *Logs) Append(name string, offset int64, data []byte) error {
	if !valid(name) || offset < 0 {
		return errors.New("a log's name or offset is not possible")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	path, base := l.find(name)
	size := int64(0)
	if path != "" {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // somebody has tidied up
			path, base = "", 0
		case err != nil:
			return named(err, "read", path)
		default:
			size = info.Size()
		}
	}
	end := base + size
	switch {
	case path == "" || offset > end:
		if path != "" {
			os.Remove(path)
		}
		path, size = l.path(name, offset), 0
		base = offset
	case offset+int64(len(data)) <= end:
		return nil // all of it is here
	default:
		data = data[end-offset:]
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return named(err, "write", path)
	}
	l.note(name, base)
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return named(err, "write", path)
	}
	if size+int64(len(data)) > 2*maxLog {
		return l.trim(name, path, base, size+int64(len(data)))
	}
	return nil
}

func (l *Logs) path(name string, offset int64) string {
	return filepath.Join(l.dir, name+"@"+strconv.FormatInt(offset, 10))
}

// trim keeps the end of a log.
func (l *Logs) trim(name, path string, base, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return named(err, "read", path)
	}
	defer f.Close()
	p, err := create(l.dir)
	if err != nil {
		return err
	}
	defer p.Drop()
	if _, err := io.Copy(p, io.NewSectionReader(f, size-maxLog, maxLog)); err != nil {
		return err
	}
	if err := p.keep(l.path(name, base+size-maxLog)); err != nil {
		return err
	}
	l.note(name, base+size-maxLog)
	return named(os.Remove(path), "remove", path)
}

// Read implements consumer.Logs.
func (l *Logs) Read(name string, offset int64, b []byte) (n int, next int64, err error) {
	if !valid(name) {
		return 0, offset, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	path, base := l.find(name)
	if path == "" {
		return 0, offset, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, offset, nil
	}
	if err != nil {
		return 0, offset, named(err, "read", path)
	}
	defer f.Close()
	offset = max(offset, base)
	n, err = f.ReadAt(b, offset-base)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, offset + int64(n), named(err, "read", path)
}

// Remove implements consumer.Logs.
func (l *Logs) Remove(taskID string) {
	if !valid(taskID) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range l.names[taskID] {
		os.Remove(l.path(name, l.base[name]))
		delete(l.base, name)
	}
	delete(l.names, taskID)
}
