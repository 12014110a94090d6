// Package child is the process in which wasm programs are compiled and run: it serves shallot.executor.v1 to the one
// that started it, over an inherited socket, from behind its fences. It runs one program at a time and keeps nothing of
// it but the compiled module. It enforces what the sandbox can (memory, files); time, output and everything else that
// takes a stop is for the parent, which ends the process.
package child

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"google.golang.org/grpc"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/fence"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/engine"
	"github.com/shallot-net/shallot/services/task/internal/engine/engines"
)

// Config is what the parent decides; it comes as flags.
type Config struct {
	Root          string // the process's own directory, absolute
	CompileMemory uint64 // bytes that compiling may take
	FileSize      uint64 // bytes of one file that a program writes
	OpenFiles     uint64
	CPUSeconds    uint64
	ParentNetwork string // the parent's network namespace
}

// gcPercent: the heap is a few MiB, and collecting it less often is worth a few more.
const gcPercent = 200

// Serve raises the fences and answers until the parent hangs up.
func Serve(cfg Config) error {
	debug.SetGCPercent(gcPercent)
	runtime.GOMAXPROCS(engines.Procs)
	memory, err := openMemory()
	if err != nil {
		return err
	}
	rest := newRest(engines.FreeMemory)
	conn, err := inherited()
	if err != nil {
		return err
	}
	fences, err := fence.Raise(fence.Config{
		Root: cfg.Root, ReadOnly: []string{wire.DirRun}, Writable: []string{wire.DirOut, wire.DirScratch},
		Files: cfg.OpenFiles, FileSize: cfg.FileSize, CPUSeconds: cfg.CPUSeconds, ParentNetwork: cfg.ParentNetwork,
	})
	if err != nil {
		return err
	}
	e, err := engines.New(wire.DirScratch)
	if err != nil {
		return err
	}
	dir, err := openOut(wire.DirOut)
	if err != nil {
		return err
	}
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(wire.MaxMessage), grpc.MaxConcurrentStreams(8),
		grpc.ReadBufferSize(16<<10), grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20),
	)
	executorv1.RegisterExecutorServiceServer(s, &server{
		cfg: cfg, engine: e, memory: memory, fence: strings.Join(fences, "+"), programs: make(map[string]engine.Program),
		out: newOutput(), dir: dir, rest: rest,
	})
	return s.Serve(newOnce(conn))
}

func inherited() (net.Conn, error) {
	f := os.NewFile(wire.Socket, "parent")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is no socket (this program is started by shallot-task): %w", wire.Socket, err)
	}
	return conn, nil
}

// once is a listener with one connection, whose end is the end of the process.
type once struct {
	conn chan net.Conn
	addr net.Addr
}

func newOnce(c net.Conn) *once {
	o := &once{conn: make(chan net.Conn, 1), addr: c.LocalAddr()}
	o.conn <- &watched{Conn: c}
	return o
}

func (o *once) Accept() (net.Conn, error) {
	c, ok := <-o.conn
	if !ok {
		return nil, io.EOF
	}
	return c, nil
}

func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return o.addr }

type watched struct {
	net.Conn
	end sync.Once
}

// Read ends the process with the connection, whatever still runs: a program must not outlive its parent.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		w.end.Do(func() { os.Exit(0) })
	}
	return n, err
}
