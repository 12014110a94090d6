package tor

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// sysProc gives tor a process group of its own, so that Ctrl-C reaches it through its owner only and a group kill takes its children too, and has the kernel
// kill it when its owner dies, however it dies.
func sysProc() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// waitExit blocks until a child has ended and leaves it unreaped, so that its process group cannot become another's before it is swept.
func waitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

func signalGroup(pid int, sig syscall.Signal) error { return syscall.Kill(-pid, sig) }
