package child

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/engine/pulse"
)

// lag is how long output may wait for more, so that a program that prints little by little can be followed and one
// that prints byte by byte does not send a message for each.
const lag = 50 * time.Millisecond

// output gathers what a program writes into pieces, in the order in which it was written, and sends them. It blocks
// the program while the parent does not take them.
type output struct {
	mu    sync.Mutex
	to    grpc.BidiStreamingServer[executorv1.ExecuteRequest, executorv1.ExecuteResponse]
	name  string // of what is in buf
	buf   []byte
	pulse *pulse.Pulse
	err   error
}

func newOutput() *output {
	o := &output{buf: make([]byte, 0, wire.Piece)}
	o.pulse = pulse.New(lag, func() { _ = o.flush() })
	return o
}

// begin sends what follows to the given call, until end.
func (o *output) begin(to grpc.BidiStreamingServer[executorv1.ExecuteRequest, executorv1.ExecuteResponse]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to, o.name, o.buf, o.err = to, "", o.buf[:0], nil
}

var errEnded = errors.New("the run is over")

// end sends what is left; nothing is sent after it.
func (o *output) end() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.send()
	err := o.err
	o.to, o.err = nil, errEnded
	return err
}

type outputStream struct {
	o    *output
	name string
}

func (o *output) stream(name string) io.Writer { return outputStream{o, name} }

func (w outputStream) Write(p []byte) (int, error) {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	return w.o.write(w.name, p)
}

func (o *output) write(name string, p []byte) (int, error) {
	if o.name != name {
		o.send()
		o.name = name
	}
	n := len(p)
	for len(p) > 0 && o.err == nil {
		if len(o.buf) == 0 {
			o.pulse.Need()
		}
		k := min(len(p), wire.Piece-len(o.buf))
		o.buf = append(o.buf, p[:k]...)
		if p = p[k:]; len(o.buf) == wire.Piece {
			o.send()
		}
	}
	return n, o.err
}

func (o *output) send() {
	if len(o.buf) == 0 || o.err != nil {
		return
	}
	o.err = o.to.Send(&executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Output{Output: &executorv1.Output{Name: o.name, Data: o.buf}}})
	o.buf = o.buf[:0] // Send has encoded it
}

func (o *output) flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.send()
	return o.err
}

// outDir is where a program's output files are. It is kept open: looking into it is part of every run, small ones too.
type outDir struct {
	root *os.Root
	dir  *os.File
}

func openOut(name string) (*outDir, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	return &outDir{root, dir}, nil
}

// send gives the regular files to o and empties the directory. The program could make nothing but files and
// directories there; anything else is passed over.
func (d *outDir) send(o *output) error {
	if _, err := d.dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	names, err := d.dir.Readdirnames(-1)
	if err != nil || len(names) == 0 {
		return err
	}
	err = fs.WalkDir(d.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := d.root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return o.copy(wire.PrefixOutput+name, f)
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.root.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// copy sends a whole file; an empty one is an empty piece.
func (o *output) copy(name string, f io.Reader) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.send()
	buf := o.buf[:wire.Piece]
	for first := true; o.err == nil; first = false {
		n, err := io.ReadFull(f, buf)
		if n > 0 || first {
			o.err = o.to.Send(&executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Output{Output: &executorv1.Output{Name: name, Data: buf[:n]}}})
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return o.err
}
