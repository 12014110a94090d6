package child

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/treepath"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/engine/pulse"
)

// lag is how long output may wait for more, so that a program that prints little by little can be followed and one
// that prints byte by byte does not send a message for each. hold is how long it waits that the program has started,
// with what it wrote until then: the parent of a short run is woken once.
const (
	lag  = 50 * time.Millisecond
	hold = 10 * time.Millisecond
)

// maxPieces bounds the pieces of one message.
const maxPieces = 64

// output gathers what a run gives into messages, in the order in which it comes, and sends them. It blocks the program
// while the parent does not take them.
type output struct {
	mu    sync.Mutex
	to    grpc.BidiStreamingServer[executorv1.ServeRequest, executorv1.ServeResponse]
	buf   []byte // of the pieces in msg
	began time.Time
	since time.Time // when msg stopped being empty
	wait  time.Duration
	pulse *pulse.Pulse
	err   error

	// Made once: each run would make them anew.
	msg     *executorv1.ServeResponse
	pieces  []*executorv1.Output
	started *executorv1.Started
}

func newOutput() *output {
	o := &output{
		buf: make([]byte, 0, wire.Piece), err: errEnded, msg: &executorv1.ServeResponse{},
		pieces: make([]*executorv1.Output, maxPieces), started: &executorv1.Started{Ago: &durationpb.Duration{}},
	}
	for i := range o.pieces {
		o.pieces[i] = &executorv1.Output{}
	}
	o.pulse = pulse.New(hold, o.look)
	return o
}

// begin sends what follows as answers to the request of that number, until finish.
func (o *output) begin(to grpc.BidiStreamingServer[executorv1.ServeRequest, executorv1.ServeResponse], number uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.to, o.err, o.wait = to, nil, lag
	o.reset()
	o.msg.Number = number
}

var errEnded = errors.New("the run is over")

// start says that the program starts now: at once or, held back, with what else there is to say soon.
func (o *output) start(held bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.need()
	o.began, o.wait, o.msg.Started = o.since, hold, o.started
	if !held {
		o.send()
	}
	return o.err
}

// finish sends what is left and the end; nothing is sent after it.
func (o *output) finish(f *executorv1.Finish) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.msg.Finish = f
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
	n := len(p)
	for len(p) > 0 && w.o.err == nil {
		piece := w.o.piece(w.name)
		p = p[w.o.extend(piece, copy(w.o.free(), p)):]
	}
	return n, w.o.err
}

// piece is the one that output of that name is added to. There is room for some.
func (o *output) piece(name string) *executorv1.Output {
	n := len(o.msg.GetOutputs())
	if len(o.buf) < cap(o.buf) && n > 0 && o.pieces[n-1].GetName() == name {
		return o.pieces[n-1]
	}
	if len(o.buf) == cap(o.buf) || n == maxPieces {
		o.send()
		n = 0
	}
	o.need()
	o.msg.Outputs = o.pieces[:n+1]
	p := o.pieces[n]
	p.Name, p.Data = name, o.free()[:0]
	return p
}

func (o *output) free() []byte { return o.buf[len(o.buf):cap(o.buf)] }

// extend adds n bytes, which were put where free says, to the last piece.
func (o *output) extend(piece *executorv1.Output, n int) int {
	o.buf = o.buf[:len(o.buf)+n]
	piece.Data = piece.Data[:len(piece.Data)+n]
	return n
}

func (o *output) empty() bool {
	return o.msg.GetStarted() == nil && len(o.msg.GetOutputs()) == 0 && o.msg.GetFinish() == nil
}

// need has what is about to be put into the message sent in time.
func (o *output) need() {
	if o.empty() {
		o.since = time.Now()
		o.pulse.Need()
	}
}

func (o *output) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.err != nil || o.empty():
	case time.Since(o.since) < o.wait:
		o.pulse.Need()
	default:
		o.send()
	}
}

func (o *output) send() {
	if o.err != nil || o.empty() {
		return
	}
	if o.msg.GetStarted() != nil {
		ago := time.Since(o.began)
		o.started.Ago.Seconds, o.started.Ago.Nanos = int64(ago/time.Second), int32(ago%time.Second) //nolint:gosec // below a second
		o.wait = lag
	}
	o.err = o.to.Send(o.msg)
	o.reset() // Send has encoded it
}

func (o *output) reset() {
	o.buf, o.msg.Started, o.msg.Outputs, o.msg.Finish = o.buf[:0], nil, nil, nil
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
// directories there; anything else is passed over. A directory is there by the files in it: an empty one is not given. The error is a
// *badName where the program is to blame.
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
		if err := treepath.Check(name); err != nil {
			return &badName{name, err}
		}
		f, err := d.root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return o.copy(wire.PrefixOutput+name, f)
	})
	var bad *badName
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	for _, name := range names {
		if err := d.root.RemoveAll(name); err != nil {
			return err
		}
	}
	return err
}

// badName says that the program made a file under a path that no result has.
type badName struct {
	name string
	err  error
}

func (b *badName) Error() string {
	return fmt.Sprintf("the program wrote the file %q, which no result can have: its path below /out is not good, %v", treepath.Shown(b.name), b.err)
}

// copy gives a whole file; an empty one is an empty piece.
func (o *output) copy(name string, f io.Reader) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for first := true; o.err == nil; first = false {
		piece := o.piece(name)
		n, err := io.ReadFull(f, o.free())
		if o.extend(piece, n); n == 0 && !first && len(piece.GetData()) == 0 {
			o.msg.Outputs = o.pieces[:len(o.msg.GetOutputs())-1]
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
