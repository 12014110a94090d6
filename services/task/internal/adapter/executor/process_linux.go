package executor

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fenced starts a child in namespaces of its own: as nobody's root, without a network interface.
func fenced() *syscall.SysProcAttr {
	a := bare()
	a.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	return a
}

// bare is without namespaces. Either way the child dies with the thread that started it, so that one is never let go.
func bare() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// patience is how late the timers of a child may be.
const patience = 500 * time.Microsecond

// patient lets what this thread starts wait for timers inexactly. While a child does anything, a thread of Go's runtime
// looks every 20 µs whether a call into the engine lasts, to move other work away from it. That costs more than the call
// of a small program, and there is no other work.
func patient() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(patience.Nanoseconds()), 0, 0, 0) // without it is as good
}

// wasKilled tells whether a process died of SIGKILL.
func wasKilled(s *os.ProcessState) bool {
	ws, ok := s.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// peakMemory is what a process had resident at most, in bytes.
func peakMemory(s *os.ProcessState) int64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss << 10
	}
	return 0
}

// cpuTime is what the child has used so far, all threads together.
func (p *process) cpuTime() (time.Duration, bool) {
	// The clock of a process: its number, complemented, above three bits that say which clock (clock_getcpuclockid(3)).
	const schedClock = 2
	var ts unix.Timespec
	if unix.ClockGettime(int32(^p.cmd.Process.Pid)<<3|schedClock, &ts) != nil { //nolint:gosec // a pid has 22 bits at most
		return 0, false
	}
	return time.Duration(ts.Nano()), true
}
