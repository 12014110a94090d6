//go:build cgo

package wasmtime

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shallot-net/shallot/services/task/internal/engine/pulse"
)

// pipe takes what a program writes to one of its streams. The library can hand output over by calling back, but does so
// on another thread for every write, which costs more than the whole run of a small program; to a file it writes at
// once. So the file is a named pipe, of which this process holds both ends for as long as it lives.
type pipe struct {
	path string
	f    *os.File
	raw  int
	buf  []byte

	w       io.Writer
	reading chan struct{} // closed when follow has ended
}

func newPipe(path string) (*pipe, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("cannot make the pipe %s: %w", path, err)
	}
	// Both ends: so that opening does not wait for the other, and reading never meets an end.
	raw, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the pipe %s: %w", path, err)
	}
	widen(raw)
	return &pipe{path: path, f: os.NewFile(uintptr(raw), path), raw: raw, buf: make([]byte, 64<<10)}, nil
}

// follow passes on what comes until halt; a program that runs longer than a moment needs it, to be followed and because
// a pipe holds little.
func (p *pipe) follow() {
	defer close(p.reading)
	for {
		n, err := p.f.Read(p.buf)
		if n > 0 {
			p.pass(p.buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// pass drops what cannot be written: whoever takes the output has given up, and will end this process.
func (p *pipe) pass(b []byte) {
	if p.w == nil {
		return
	}
	if _, err := p.w.Write(b); err != nil {
		p.w = nil
	}
}

// halt ends follow.
func (p *pipe) halt() {
	_ = p.f.SetReadDeadline(time.Unix(1, 0))
	<-p.reading
	_ = p.f.SetReadDeadline(time.Time{})
}

// drain passes on what is left when nobody writes any more: a read that could have given more has given all.
func (p *pipe) drain() {
	for {
		n, err := unix.Read(p.raw, p.buf)
		if n <= 0 || err != nil {
			return
		}
		p.pass(p.buf[:n])
		if n < len(p.buf) {
			return
		}
	}
}

func (p *pipe) close() {
	_ = p.f.Close()
	_ = os.Remove(p.path)
}

// followAfter is when a program counts as one that runs longer than a moment.
const followAfter = 10 * time.Millisecond

// pipes are a program's stdout and stderr.
type pipes struct {
	out, err *pipe
	pulse    *pulse.Pulse

	mu        sync.Mutex
	since     time.Time // when the program began that runs now; zero when none does
	following bool
}

func newPipes(dir string) (*pipes, error) {
	out, err := newPipe(filepath.Join(dir, "stdout"))
	if err != nil {
		return nil, err
	}
	e, err := newPipe(filepath.Join(dir, "stderr"))
	if err != nil {
		out.close()
		return nil, err
	}
	p := &pipes{out: out, err: e}
	p.pulse = pulse.New(followAfter, p.look)
	return p, nil
}

// look begins to follow a program once it has run for a moment.
func (p *pipes) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.since.IsZero() || p.following:
	case time.Since(p.since) < followAfter:
		p.pulse.Need()
	default:
		p.following = true
		p.out.reading, p.err.reading = make(chan struct{}), make(chan struct{})
		go p.out.follow()
		go p.err.follow()
	}
}

// begin passes on what is written until end, which is called when the program can write no more.
func (p *pipes) begin(stdout, stderr io.Writer) (end func()) {
	p.out.w, p.err.w = stdout, stderr
	p.mu.Lock()
	p.since = time.Now()
	p.mu.Unlock()
	p.pulse.Need()
	return func() {
		p.mu.Lock()
		following := p.following
		p.since, p.following = time.Time{}, false
		p.mu.Unlock()
		if following {
			p.out.halt()
			p.err.halt()
		}
		p.out.drain()
		p.err.drain()
		p.out.w, p.err.w = nil, nil
	}
}

func (p *pipes) close() {
	p.out.close()
	p.err.close()
}
