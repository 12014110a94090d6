//go:build unix && !linux

package tor

import "syscall"

// sysProc gives tor a process group of its own, so that Ctrl-C reaches it through its owner only and a group kill takes its children too. Where
// the kernel has no signal for the death of a parent, tor itself looks for its owner every 15 seconds (__OwningControllerProcess).
func sysProc() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// waitExit is only there where a child can be waited for without being reaped.
func waitExit(int) {}

// signalGroup would hit another's group here: without waitExit this is called while tor still runs.
func signalGroup(int, syscall.Signal) error { return nil }
