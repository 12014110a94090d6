package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

// A fake child is this test's own program under a name that says how it behaves: a child gets no environment.
const fakePrefix = "fake-"

type serveStream = grpc.BidiStreamingServer[executorv1.ServeRequest, executorv1.ServeResponse]

var (
	fakeStarted = &executorv1.Started{}
	fakeOutput  = []*executorv1.Output{{Name: wire.OutputStdout, Data: []byte("x")}}
	fakeFinish  = &executorv1.Finish{}
)

// fakes answer a request with messages and an end of the call.
var fakes = map[string]func(number uint64, conn net.Conn) ([]*executorv1.ServeResponse, error){
	"well": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n, Started: fakeStarted, Outputs: fakeOutput, Finish: fakeFinish}}, nil
	},
	"other": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n + 1, Started: fakeStarted, Finish: fakeFinish}}, nil
	},
	"twice": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n, Started: fakeStarted}, {Number: n, Started: fakeStarted, Finish: fakeFinish}}, nil
	},
	"empty": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n, Started: fakeStarted}, {Number: n}}, nil
	},
	"never": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n, Finish: fakeFinish}}, nil
	},
	"early": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n, Outputs: fakeOutput}, {Number: n, Started: fakeStarted, Finish: fakeFinish}}, nil
	},
	"artefact": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		o := []*executorv1.Output{{Name: wire.PartArtefact, Data: []byte("x")}}
		return []*executorv1.ServeResponse{{Number: n, Started: fakeStarted, Outputs: o, Finish: fakeFinish}}, nil
	},
	"late": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n, Started: fakeStarted, Outputs: fakeOutput, Finish: fakeFinish}, {Number: n, Outputs: fakeOutput}}, nil
	},
	"slow": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n, Started: &executorv1.Started{Ago: durationpb.New(time.Hour)}, Finish: fakeFinish}}, nil
	},
	"ends": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n, Started: fakeStarted}}, io.EOF
	},
	"fails": func(n uint64, _ net.Conn) ([]*executorv1.ServeResponse, error) {
		return []*executorv1.ServeResponse{{Number: n, Started: fakeStarted}}, errors.New("no disk")
	},
	"hangs up": func(_ uint64, conn net.Conn) ([]*executorv1.ServeResponse, error) {
		_ = conn.Close()
		select {}
	},
	"dies": func(uint64, net.Conn) ([]*executorv1.ServeResponse, error) {
		os.Exit(3)
		return nil, nil
	},
}

type fakeServer struct {
	executorv1.UnimplementedExecutorServiceServer
	name string
	conn net.Conn
}

func (*fakeServer) Describe(context.Context, *executorv1.DescribeRequest) (*executorv1.DescribeResponse, error) {
	return &executorv1.DescribeResponse{Type: TypeWasm}, nil
}

func (f *fakeServer) Serve(stream serveStream) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		answers, end := fakes[f.name](req.GetNumber(), f.conn)
		for _, a := range answers {
			if err := stream.Send(a); err != nil {
				return err
			}
		}
		if errors.Is(end, io.EOF) {
			return nil
		}
		if end != nil {
			return end
		}
	}
}

// fakeChild serves until its parent hangs up, if this process is one.
func fakeChild() (is bool) {
	name, is := strings.CutPrefix(filepath.Base(os.Args[0]), fakePrefix)
	if !is {
		return false
	}
	f := os.NewFile(wire.Socket, "parent")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return true
	}
	s := grpc.NewServer()
	executorv1.RegisterExecutorServiceServer(s, &fakeServer{name: name, conn: conn})
	l := make(oneConn, 1)
	l <- conn
	_ = s.Serve(l)
	return true
}

// oneConn is a listener that never has another; the parent ends the process.
type oneConn chan net.Conn

func (l oneConn) Accept() (net.Conn, error) { return <-l, nil }
func (oneConn) Close() error                { return nil }
func (oneConn) Addr() net.Addr              { return &net.UnixAddr{} }

func newFake(t *testing.T, name string) *Wasm {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), fakePrefix+name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return newWasm(t, func(c *Config) { c.Binary, c.Max = path, 1 })
}

func TestChildThatDoesNotKeepToTheProtocol(t *testing.T) {
	tests := map[string]struct{ says string }{
		"other":    {says: "to request 2, not to 1"},
		"twice":    {says: "started twice"},
		"empty":    {says: "nothing in it"},
		"never":    {says: "never started"},
		"early":    {says: `output "stdout" before`},
		"artefact": {says: `output "artefact" of a program`},
		"ends":     {says: "ended the call without a result"},
		"fails":    {says: "could not run the program"},
		"hangs up": {says: "ended before the program did"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFake(t, name)
			idle(t, w, 1)
			child := w.pool.idle[0]
			out, err := w.Execute(t.Context(), taskOf(enginetest.Program("hello")), newSink())
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%+v, %v", out, err)
			}
			<-child.dead
		})
	}
}

func TestChildThatSaysMoreAfterTheEnd(t *testing.T) {
	w := newFake(t, "late")
	idle(t, w, 1)
	child := w.pool.idle[0]
	run := taskOf(enginetest.Program("hello"))
	if out, s := execute(t, w, run); out.Reason != "" || s.text("stdout") != "x" {
		t.Errorf("%+v, %q", out, s.text("stdout"))
	}
	s := newSink()
	if out, err := w.Execute(t.Context(), run, s); !errors.Is(err, errProtocol) || s.started {
		t.Errorf("it counts for the next run: %+v, %v", out, err)
	}
	<-child.dead
	if out, s := execute(t, w, run); out.Reason != "" || s.text("stdout") != "x" {
		t.Errorf("the run after it: %+v, %q", out, s.text("stdout"))
	}
}

// A child that dies while it compiles, or says nothing else before, is the module's doing.
func TestChildThatDiesBeforeTheStart(t *testing.T) {
	w := newFake(t, "dies")
	if out, _ := execute(t, w, taskOf(enginetest.Program("hello"))); out.Reason != app.ReasonCompile || !strings.Contains(out.Message, "exit status 3") {
		t.Errorf("%+v", out)
	}
}

func TestTimeBeforeTheStartWasToldCounts(t *testing.T) {
	w := newFake(t, "slow")
	if out, s := execute(t, w, taskOf(enginetest.Program("hello"))); out.Reason != app.ReasonTimeLimit || !s.started {
		t.Errorf("%+v", out)
	}
}
