//go:build unix && !linux

package supervisor

import (
	"errors"
	"os"
	"syscall"
)

// sysProc gives a child a process group of its own, so that Ctrl-C reaches it through the supervisor only and a
// group kill takes its children too. Where the kernel
// has no signal for the death of a parent the inherited pipe (lifecycle.ParentFD) alone ends it.
func sysProc() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

func signalGroup(pid int, sig syscall.Signal) error {
	err := syscall.Kill(-pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// Alive tells whether a process with this id exists.
func Alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// waitExit is only there where a child can be waited for without being reaped.
func waitExit(int) {}
