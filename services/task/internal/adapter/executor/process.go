package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"github.com/shallot-net/shallot/kit/rpc"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/fence"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
)

const (
	// startTime is what a child gets from its start to its first answer. It takes some 20 ms, and on a machine where a thousand processes start at once
	// as many seconds.
	startTime = 2 * time.Minute
	// stderrBytes of a child's last words are kept.
	stderrBytes = 4 << 10
)

// process is one child and what its parent knows of it. Whoever took it from the pool owns it until it is given back.
type process struct {
	cmd    *exec.Cmd
	conn   *grpc.ClientConn
	stream grpc.BidiStreamingClient[executorv1.ServeRequest, executorv1.ServeResponse] // for all runs
	number uint64                                                                      // of the last request
	watch  *watch
	about  *executorv1.DescribeResponse
	root   string
	stderr *lastBytes

	dead chan struct{} // closed when the process is gone and exit is set
	exit *os.ProcessState

	ran      bool // a program: what it sends from then on is not for the module cache
	runs     int
	cpu      time.Duration // of the runs that ended by themselves
	resident *residents
	idle     time.Time // since when
}

// spawn starts a child, by a function that run calls on a thread which stays, and waits for its first answer. It blocks
// for some 20 ms.
func spawn(ctx context.Context, cfg *Config, run func(func())) (p *process, err error) {
	root, err := os.MkdirTemp(filepath.Join(cfg.Dir, dirChildren), "")
	if err != nil {
		return nil, fmt.Errorf("cannot make a directory for an executor process: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(root)
		}
	}()
	for _, d := range []string{wire.DirRun, wire.DirOut, wire.DirScratch} {
		if err := os.Mkdir(filepath.Join(root, d), 0o700); err != nil {
			return nil, fmt.Errorf("cannot make a directory for an executor process: %w", err)
		}
	}
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	p = &process{root: root, stderr: &lastBytes{}, dead: make(chan struct{}), watch: newWatch(cfg), resident: newResidents(cfg.ResidentModules, cfg.ResidentBytes)}
	err = errClosed
	run(func() { p.cmd, err = start(cfg, root, theirs, p.stderr) })
	if err != nil {
		_ = conn.Close()
		_ = theirs.Close()
		return nil, err
	}
	_ = theirs.Close()
	err = p.dial(conn)
	if err != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		return nil, err
	}
	go p.wait()
	if err := p.greet(ctx); err != nil {
		p.kill()
		<-p.dead
		if words := p.stderr.String(); words != "" {
			err = fmt.Errorf("%w: %s", err, words)
		}
		return nil, fmt.Errorf("the executor process %s did not start: %w", cfg.Binary, err)
	}
	return p, nil
}

func socketPair() (net.Conn, *os.File, error) {
	// Nothing may start a process between making the descriptors and marking them: it would inherit them.
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket for an executor process: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "child"), os.NewFile(uintptr(fds[1]), "parent")
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("cannot use a socket for an executor process: %w", err)
	}
	return conn, theirs, nil
}

func start(cfg *Config, root string, socket *os.File, stderr io.Writer) (*exec.Cmd, error) {
	network, _ := fence.Network() // without it that fence is not reported
	command := func(attr *syscall.SysProcAttr) *exec.Cmd {
		cmd := exec.Command(cfg.Binary, "-root", root,
			"-compile-memory", strconv.FormatInt(cfg.CompileMemory, 10), "-file-size", strconv.FormatInt(cfg.FileSize, 10), "-parent-network", network)
		cmd.Env, cmd.Dir, cmd.ExtraFiles, cmd.Stderr, cmd.SysProcAttr = []string{}, root, []*os.File{socket}, stderr, attr
		// What holds stderr open after the child's end is none of ours to wait for.
		cmd.WaitDelay = time.Second
		return cmd
	}
	cmd := command(fenced())
	err := cmd.Start()
	if err != nil && isRefused(err) {
		// No namespaces for us here (a container, a hardened kernel): the child reports that this fence is missing.
		cmd = command(bare())
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot start the executor process %s: %w", cfg.Binary, err)
	}
	return cmd, nil
}

func isRefused(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EUSERS)
}

// dial wraps the one connection that there is; nothing is sent yet.
func (p *process) dial(conn net.Conn) error {
	var once sync.Once
	cc, err := rpc.Dial("", rpc.ClientConfig{
		MaxMessage: wire.MaxMessage,
		Dialer: func(context.Context) (c net.Conn, err error) {
			err = errors.New("the executor process hung up")
			once.Do(func() { c, err = conn, nil })
			return c, err
		},
		Options: []grpc.DialOption{
			// A program in a tight loop can keep its process from answering; its end is seen by waiting for it.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: math.MaxInt64}),
			// There is no second connection to try: a child whose first one is given up ends.
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: startTime, Backoff: backoff.DefaultConfig}),
			grpc.WithReadBufferSize(32 << 10), grpc.WithWriteBufferSize(32 << 10),
		},
	})
	if err != nil {
		_ = conn.Close()
		return err
	}
	p.conn = cc
	return nil
}

func (p *process) greet(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	defer p.bind(cancel)()
	client := executorv1.NewExecutorServiceClient(p.conn)
	if p.about, err = client.Describe(ctx, &executorv1.DescribeRequest{}); err != nil {
		return err
	}
	// It ends with the connection, which the child's death closes: a run is over when that is known, and not before.
	p.stream, err = client.Serve(context.Background())
	return err
}

// bind ends a call when the child dies.
func (p *process) bind(cancel context.CancelFunc) (unbind func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-p.dead:
			cancel()
		case <-done:
		}
	}()
	return func() { close(done) }
}

// wait collects the child and what it leaves.
func (p *process) wait() {
	_ = p.cmd.Wait()
	p.exit = p.cmd.ProcessState
	_ = p.conn.Close()
	_ = os.RemoveAll(p.root)
	close(p.dead)
}

// kill ends the child at once; dead tells when it is gone. It may be called by anyone, any number of times.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
}

// lastBytes keeps the end of what is written.
type lastBytes struct {
	mu  sync.Mutex
	buf []byte
}

func (l *lastBytes) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, b[max(0, len(b)-stderrBytes):]...)
	if over := len(l.buf) - stderrBytes; over > 0 {
		l.buf = append(l.buf[:0], l.buf[over:]...)
	}
	return len(b), nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}

// grownEvery is how many runs go by between looks at a child's memory.
const grownEvery = 64

// grown tells whether the child holds more memory than an idle one should.
func (p *process) grown(most int64) bool {
	if p.runs%grownEvery != 0 {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return false // not Linux, or gone, which is seen elsewhere
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return false
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return err == nil && pages*int64(os.Getpagesize()) > most
}
