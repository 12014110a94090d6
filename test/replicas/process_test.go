package replicas

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/kit/rpc"
)

// process is one that is killed and started again.
type process struct {
	t      *testing.T
	w      *world
	kind   string // its service
	name   string // beside others of the kind
	args   []string
	listen string // where it answers over TLS; empty: at its socket in the home
	home   string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	out  bytes.Buffer // of all its lives
}

// start runs it with the names of the world; see hostsFile.
func (p *process) start() {
	p.t.Helper()
	args := append([]string{"-c", `mount --bind "$0" /etc/hosts && exec "$@"`, p.w.hosts, filepath.Join(p.w.bin, "shallot-"+p.kind), "--home", p.home, "--log.level", "info"}, p.args...)
	c := exec.Command("/bin/sh", args...)
	c.Env = append(os.Environ(), "GODEBUG=netdns=go")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: syscall.CLONE_NEWNS}
	if id := os.Getuid(); id != 0 {
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.Stdout, c.Stderr = &locked{p: p}, &locked{p: p}
	if err := c.Start(); err != nil {
		p.t.Errorf("start %s: %v", p.name, err)
		return
	}
	p.cmd, p.done = c, make(chan struct{})
	go func(done chan struct{}) {
		_ = c.Wait() // that it was killed
		close(done)
	}(p.done)
}

// locked keeps what a process says apart from who reads it.
type locked struct{ p *process }

func (l *locked) Write(b []byte) (int, error) {
	l.p.w.logs.Lock()
	defer l.p.w.logs.Unlock()
	return l.p.out.Write(b)
}

// kill ends it without a word, and waits until it has.
func (p *process) kill() {
	p.mu.Lock()
	c, done := p.cmd, p.done
	p.cmd = nil
	p.mu.Unlock()
	if c == nil {
		return
	}
	_ = c.Process.Kill() // it may have ended
	<-done
}

// pause stops it for a time, as a machine does that has too much to do; it breaks no connection meanwhile. One that another has taken the lead from ends, and is started again.
func (p *process) pause(ctx context.Context, d time.Duration) {
	p.t.Helper()
	p.mu.Lock()
	c, done := p.cmd, p.done
	p.mu.Unlock()
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Errorf("pause %s: %v", p.name, err)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	if err := c.Process.Signal(syscall.SIGCONT); err != nil {
		p.t.Errorf("wake %s: %v", p.name, err)
	}
	// Whether it leads it finds out at its next beat.
	t.Reset(afterPause)
	select {
	case <-done:
		p.start()
	case <-t.C:
	case <-ctx.Done():
	}
}

// afterPause is more than a beat and a service's stop in order: one that ended later would not be started again.
const afterPause = 12 * time.Second

// ready waits until it says that it is; false: ctx ended before.
func (p *process) ready(ctx context.Context) bool {
	p.t.Helper()
	late, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	target := p.listen
	if target == "" {
		target = "unix:" + filepath.Join(p.home, "run", p.kind+".sock")
	}
	conn, err := rpc.Dial(target, rpc.ClientConfig{Peer: p.kind, TLS: p.w.creds})
	if err != nil {
		p.t.Error(err)
		return false
	}
	defer conn.Close()
	for late.Err() == nil {
		s, err := healthpb.NewHealthClient(conn).Watch(late, &healthpb.HealthCheckRequest{})
		for err == nil {
			var r *healthpb.HealthCheckResponse
			if r, err = s.Recv(); err == nil && r.GetStatus() == healthpb.HealthCheckResponse_SERVING {
				return true
			}
		}
	}
	if ctx.Err() == nil {
		p.t.Errorf("%s is not ready in time", p.name)
	}
	return false
}
