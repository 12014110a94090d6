package fence

import (
	"errors"
	"fmt"
	"os"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

var errNoSeccomp = errors.New("no seccomp")

// What the Go runtime, the C library and the engines call while they compile and run. Everything that names a file
// relative to a directory is for the sandbox's own preopened directories. Not here, so refused: sockets, exec, fork,
// ptrace, signals to others, mounts, namespaces, changes of mode and owner, keys, io_uring, bpf, perf, userfaultfd.
var allowed = []string{
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "lseek", "close", "fstat", "newfstatat", "statx", "fstatfs", "fcntl", "dup",
	"open", "openat", "openat2", "readlink", "readlinkat", "faccessat", "faccessat2", "access", "getdents64", "getcwd", "stat", "lstat",
	"mkdirat", "unlinkat", "renameat", "renameat2", "mkdir", "unlink", "rmdir", "rename", "utimensat", "ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range", "fadvise64", "flock",
	"mmap", "mprotect", "munmap", "mremap", "madvise", "brk", "mincore", "memfd_create", "membarrier", "msync",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "sigaltstack", "restart_syscall",
	"futex", "futex_waitv", "sched_yield", "sched_getaffinity", "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "arch_prctl",
	"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "times", "getcpu",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6", "eventfd2", "pipe2", "timerfd_create", "timerfd_settime",
	"recvfrom", "recvmsg", "sendto", "sendmsg", "getsockopt", "setsockopt", "getsockname", "getpeername", "shutdown",
	"getrandom", "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrusage", "getrlimit", "setrlimit", "uname", "sysinfo", "exit", "exit_group",
}

const (
	enosys = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
	// ioctlNonBlock is FIONBIO.
	ioctlNonBlock = 0x5421
)

// filter admits the calls above to every thread, and answers all others with EPERM: a program that gets there is
// broken or hostile, and the service sees how its child fares either way.
func filter() error {
	if !seccomp.Supported() {
		return errNoSeccomp
	}
	info, err := arch.GetInfo("")
	if err != nil {
		return errNoSeccomp
	}
	known := slices.DeleteFunc(slices.Clone(allowed), func(name string) bool { _, ok := info.SyscallNames[name]; return !ok })
	self := uint64(os.Getpid()) //nolint:gosec // positive
	policy := seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{
		{Action: seccomp.ActionAllow, Names: known, NamesWithCondtions: []seccomp.NameWithConditions{
			{Name: "clone", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD}}},
			{Name: "tgkill", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: self}}},
			{Name: "prlimit64", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: 0}}},
			{Name: "mknodat", Conditions: seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.Equal, Value: unix.S_IFIFO | 0o600}}},
			{Name: "prctl", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: unix.PR_SET_NAME}}},
			{Name: "ioctl", Conditions: seccomp.ArgumentConditions{{Argument: 1, Operation: seccomp.Equal, Value: ioctlNonBlock}}},
		}},
		// The C library falls back to clone, whose flags can be looked at.
		{Action: enosys, Names: []string{"clone3"}},
	}}
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy}); err != nil {
		return fmt.Errorf("cannot filter system calls: %w", err)
	}
	// The kernel says by a positive number, which the library drops, that a thread could not be brought along.
	if _, err := unix.Getpgid(0); !errors.Is(err, unix.EPERM) {
		return errors.New("cannot filter system calls: the filter does not hold")
	}
	return nil
}
