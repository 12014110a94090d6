//go:build !linux

package executor

import (
	"os"
	"syscall"
	"time"
)

func fenced() *syscall.SysProcAttr { return bare() }

// bare leaves it to the child to end when its parent hangs up.
func bare() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

func patient() {}

func wasKilled(s *os.ProcessState) bool { return !s.Exited() }

func peakMemory(*os.ProcessState) int64 { return 0 }

func (*process) cpuTime() (time.Duration, bool) { return 0, false }
