package child

import (
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"

	"google.golang.org/grpc"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
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
	timer *time.Timer
	err   error
}

func newOutput(to grpc.BidiStreamingServer[executorv1.ExecuteRequest, executorv1.ExecuteResponse]) *output {
	return &output{to: to}
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
		if len(o.buf) == 0 && o.timer == nil {
			o.timer = time.AfterFunc(lag, o.late)
		}
		k := min(len(p), wire.Piece-len(o.buf))
		o.buf = append(o.buf, p[:k]...)
		if p = p[k:]; len(o.buf) == wire.Piece {
			o.send()
		}
	}
	return n, o.err
}

func (o *output) late() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timer = nil
	o.send()
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

func (o *output) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.send()
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
	return o.err
}

// files sends the regular files below dir and empties it. The program could make nothing but files and directories
// there; anything else is passed over.
func (o *output) files(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil || len(entries) == 0 {
		return err
	}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.copy(wire.PrefixOutput+path.Clean(name), f)
	})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := root.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// copy sends a whole file; an empty one is an empty piece.
func (o *output) copy(name string, f io.Reader) error {
	if o.name != name {
		o.send()
		o.name = name
	}
	buf := make([]byte, wire.Piece)
	for first := true; o.err == nil; first = false {
		n, err := io.ReadFull(f, buf)
		if n > 0 || first {
			o.err = o.to.Send(&executorv1.ExecuteResponse{Response: &executorv1.ExecuteResponse_Output{Output: &executorv1.Output{Name: name, Data: buf[:n]}}})
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // io.ReadFull returns them bare
			break
		}
		if err != nil {
			return err
		}
	}
	return o.err
}
