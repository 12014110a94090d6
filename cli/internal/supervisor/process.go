package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/thejerf/suture/v4"

	"github.com/shallot-net/shallot/kit/fence"
	"github.com/shallot-net/shallot/kit/lifecycle"
)

// How a process is started again: at once, but one that keeps dying waits for the pause, so that it does not eat the
// machine. Failures fade with half-life decay.
const (
	restartThreshold = 5
	restartDecay     = 10 // seconds
	restartPause     = 2 * time.Second
)

// Stopping: together under five seconds, with the broker after the services and tor after it.
const (
	serviceGrace = 2500 * time.Millisecond
	brokerGrace  = 1200 * time.Millisecond
	torGrace     = 800 * time.Millisecond // of tor and of what controls it
	// pipeGrace is how long what a dead process wrote may take to arrive.
	pipeGrace = 50 * time.Millisecond
)

// ending is how a process ended, once done is closed.
type ending struct {
	done chan struct{}
	err  error
}

// process is one supervised process, a suture.Service.
type process struct {
	name    string
	path    string
	args    func() []string // asked at every start
	log     *processLog
	gate    <-chan struct{} // nil, or closed when it may start
	grace   time.Duration
	way     fence.Way // how it is enclosed
	foreign bool      // it is no program of ours and watches no pipe
	// changed is told of every start (pid > 0) and end (pid 0, with why).
	changed func(name string, pid int, why string)

	starts atomic.Int64
}

func (p *process) String() string { return p.name }

// run supervises the process until ctx ends and the process has ended.
func (p *process) run(ctx context.Context) {
	s := suture.New(p.name, suture.Spec{
		EventHook:        func(suture.Event) {}, // changed tells more
		FailureThreshold: restartThreshold, FailureDecay: restartDecay, FailureBackoff: restartPause,
		Timeout: p.grace + time.Second,
	})
	s.Add(p)
	_ = s.Serve(ctx) // it only repeats why ctx ended
	_ = p.log.Close()
}

// Serve implements suture.Service: one life of the process.
func (p *process) Serve(ctx context.Context) error {
	if p.gate != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.gate:
		}
	}
	cmd, err := p.command()
	if err == nil {
		err = start(cmd)
	}
	if err != nil {
		err = fmt.Errorf("cannot start %s: %w", p.path, err)
		p.changed(p.name, 0, err.Error())
		return err
	}
	p.starts.Add(1)
	p.changed(p.name, cmd.Process.Pid, "")
	ended := &ending{done: make(chan struct{})}
	go func() {
		defer close(ended.done)
		ended.err = reap(cmd)
	}()
	select {
	case <-ended.done:
		why := p.why(ended.err)
		p.changed(p.name, 0, why)
		return errors.New(why)
	case <-ctx.Done():
		p.stop(cmd, ended)
		p.changed(p.name, 0, "")
		return ctx.Err()
	}
}

func (p *process) command() (*exec.Cmd, error) {
	cmd := exec.Command(p.path, p.args()...)
	cmd.Env = os.Environ()
	if !p.foreign {
		parent, err := parentPipe()
		if err != nil {
			return nil, err
		}
		cmd.Env = append(cmd.Env, lifecycle.ParentFD+"="+strconv.Itoa(3))
		cmd.ExtraFiles = []*os.File{parent.read} // descriptor 3
	}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = sysProc()
	cmd.WaitDelay = pipeGrace
	p.way.Enclose(cmd)
	return cmd, nil
}

// reap waits for the end of a process and ends what it left in its group.
func reap(cmd *exec.Cmd) error {
	waitExit(cmd.Process.Pid)
	_ = signalGroup(cmd.Process.Pid, syscall.SIGKILL)
	return cmd.Wait()
}

func (p *process) stop(cmd *exec.Cmd, ended *ending) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-ended.done:
		return
	case <-timer.C:
	}
	_ = signalGroup(cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Process.Kill()
	<-ended.done
}

// why says how a process ended, with its last words where it ended by itself.
func (p *process) why(err error) string {
	last := lastWords(p.log.takeLast())
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return join("exit status 0", last)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() { // by a signal, that is by somebody else
		return err.Error()
	}
	return join(err.Error(), last)
}

func join(how, last string) string {
	if last == "" {
		return how
	}
	return how + ": " + last
}

// lastWords makes one sentence of the last line of a log. What is not about trouble does not tell why it ended.
func lastWords(line string) string {
	var record struct{ Level, Msg, Error string }
	if json.Unmarshal([]byte(line), &record) != nil || record.Msg == "" {
		return line
	}
	if record.Level == "INFO" || record.Level == "DEBUG" {
		return ""
	}
	return join(record.Msg, record.Error)
}
