package tor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// maxLine is how much of one line of tor's log is kept.
const maxLine = 8 << 10

// pipeGrace is how long what a dead tor wrote may take to arrive.
const pipeGrace = 100 * time.Millisecond

// ProcessConfig says which tor to run.
type ProcessConfig struct {
	Program Program
	Torrc   string // the path of its configuration, such as ClientConfig.Write makes
	// Line gets each line of its log, without the line's end and cut to 8 KiB; Bootstrap what lines say about its way into the network. Both may be nil. They are called one
	// at a time and must not block, or tor does. A line can name the node's guards: it is for a file that only the operator reads.
	Line      func(string)
	Bootstrap func(Bootstrap)
}

// Process is one running tor. It ends when this program does, also when that is killed.
type Process struct {
	cmd  *exec.Cmd
	log  *lines
	done chan struct{}
	err  error // once done is closed
}

// StartProcess starts a tor and returns at once: it may still end because it cannot use its configuration, see Done and Err.
func StartProcess(cfg ProcessConfig) (*Process, error) {
	args := append(Args(cfg.Torrc), "__OwningControllerProcess", strconv.Itoa(os.Getpid()))
	if _, err := os.Stat(args[3]); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(args[3], nil, 0o600); err != nil {
			return nil, fault.FailedPrecondition(ReasonStartFailed, "cannot write %s", args[3]).Because(err)
		}
	}
	p := &Process{
		cmd:  exec.Command(cfg.Program.Path, args...),
		log:  &lines{line: cfg.Line, bootstrap: cfg.Bootstrap},
		done: make(chan struct{}),
	}
	p.cmd.Env = environ()
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = sysProc()
	p.cmd.WaitDelay = pipeGrace
	if err := start(p.cmd); err != nil {
		return nil, fault.FailedPrecondition(ReasonStartFailed, "cannot start %s", cfg.Program.Path).Because(err)
	}
	go p.reap()
	return p, nil
}

// PID is the process's id, also after its end.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when tor has ended and all that it said was heard.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says why tor ended, with the last of its complaints; it is nil while it runs, and after an end without trouble.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Stop asks tor to end, ends it after grace where it has not, and returns when it has and nothing of its process group is left.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // where it has ended already, done is about to be closed
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-timer.C:
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// reap waits for the end of tor and ends what it left in its group, such as pluggable transports.
func (p *Process) reap() {
	defer close(p.done)
	waitExit(p.PID())
	_ = signalGroup(p.PID(), syscall.SIGKILL)
	err := p.cmd.Wait()
	p.log.flush()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return
	}
	p.err = fault.Unavailable(ReasonStartFailed, "tor ended: %s", p.log.why(err))
}

// lines splits what tor writes into lines and keeps the last complaint.
type lines struct {
	line      func(string)
	bootstrap func(Bootstrap)

	mu    sync.Mutex
	part  []byte
	worst string // the last error, or where there is none the last warning
	isErr bool
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range p {
		switch {
		case c == '\n':
			l.end()
		case len(l.part) < maxLine:
			l.part = append(l.part, c)
		}
	}
	return len(p), nil
}

func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

// end is the end of a line.
func (l *lines) end() {
	text := strings.ToValidUTF8(strings.TrimRight(string(l.part), "\r"), "\uFFFD")
	l.part = l.part[:0]
	if text == "" {
		return
	}
	if level, said, ok := severity(text); ok && (level == "err" || level == "warn" && !l.isErr) {
		l.worst, l.isErr = clip(said, maxSummary), level == "err"
	}
	if l.line != nil {
		l.line(text)
	}
	if b, ok := ParseBootstrap(text); ok && l.bootstrap != nil {
		l.bootstrap(b)
	}
}

func (l *lines) why(err error) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worst == "" {
		return err.Error()
	}
	return fmt.Sprintf("%v: %s", err, l.worst)
}
