package fence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// OOMScore makes a child the first that the kernel ends when memory runs out.
const OOMScore = 900

// Raise puts all fences up that the kernel gives, for every thread, and returns their names. It is called once, first
// thing; the order matters: each step still needs what a later one takes away. An error is a fence that should hold
// and does not.
func Raise(cfg Config) ([]string, error) {
	if err := limit(cfg); err != nil {
		return nil, err
	}
	held := []string{Rlimits}
	// Best effort: it may have been set higher from outside.
	_ = os.WriteFile("/proc/self/oom_score_adj", fmt.Appendf(nil, "%d", OOMScore), 0o600)
	if ownNetwork(cfg.ParentNetwork) {
		held = append(held, Namespaces)
	}
	if v, err := llsyscall.LandlockGetABIVersion(); err == nil && v >= 1 {
		if err := restrictFiles(cfg); err != nil {
			return nil, err
		}
		held = append(held, Landlock)
	}
	if err := dropPrivileges(); err != nil {
		return nil, err
	}
	held = append(held, NoPrivs)
	if unix.Chroot(cfg.Root) == nil {
		if err := unix.Chdir("/"); err != nil {
			return nil, fmt.Errorf("cannot enter the root directory: %w", err)
		}
		held = append(held, Chroot)
	}
	switch err := filter(); {
	case err == nil:
		held = append(held, Seccomp)
	case !errors.Is(err, errNoSeccomp):
		return nil, err
	}
	return held, nil
}

func limit(cfg Config) error {
	for _, l := range []struct {
		what  int
		name  string
		value uint64
	}{
		{unix.RLIMIT_CORE, "core dumps", 0},
		{unix.RLIMIT_NOFILE, "open files", cfg.Files},
		{unix.RLIMIT_FSIZE, "file size", cfg.FileSize},
		{unix.RLIMIT_CPU, "CPU time", cfg.CPUSeconds},
	} {
		var old unix.Rlimit
		if err := unix.Getrlimit(l.what, &old); err != nil {
			return fmt.Errorf("cannot read the limit on %s: %w", l.name, err)
		}
		v := min(l.value, old.Max)
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: v, Max: v}); err != nil {
			return fmt.Errorf("cannot limit %s to %d: %w", l.name, v, err)
		}
	}
	return nil
}

// ownNetwork tells whether this process has a network namespace that is not its parent's.
func ownNetwork(parent string) bool {
	own, err := Network()
	return err == nil && parent != "" && own != parent
}

// Network names the network namespace of this process.
func Network() (string, error) { return os.Readlink("/proc/self/ns/net") }

// restrictFiles confines every thread to the given directories, without the right to execute anything in them.
func restrictFiles(cfg Config) error {
	const (
		read  = landlock.AccessFSSet(llsyscall.AccessFSReadFile | llsyscall.AccessFSReadDir)
		write = read | llsyscall.AccessFSWriteFile | llsyscall.AccessFSTruncate | llsyscall.AccessFSMakeReg | llsyscall.AccessFSMakeFifo | llsyscall.AccessFSMakeDir |
			llsyscall.AccessFSRemoveFile | llsyscall.AccessFSRemoveDir
	)
	// Best effort is about what a newer kernel has more: files are confined by the first version already.
	if err := landlock.V6.BestEffort().Restrict(landlock.PathAccess(read, below(cfg.Root, cfg.ReadOnly)...), landlock.PathAccess(write, below(cfg.Root, cfg.Writable)...)); err != nil {
		return fmt.Errorf("cannot confine file access: %w", err)
	}
	return nil
}

func below(root string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = filepath.Join(root, n)
	}
	return out
}

// dropPrivileges takes every capability from every thread, those in a user namespace of its own too: one of them would
// open files past their permissions. The one to change the root directory is left for the next step, which hides what
// reaching every thread takes (/proc); after that the filter of system calls refuses what it is for.
func dropPrivileges() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("cannot give up new privileges: %w", errno)
	}
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var has, keep [2]unix.CapUserData
	if err := unix.Capget(header, &has[0]); err != nil {
		return fmt.Errorf("cannot read this process's capabilities: %w", err)
	}
	keep[0].Permitted = has[0].Permitted & (1 << unix.CAP_SYS_CHROOT)
	keep[0].Effective = keep[0].Permitted
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(&keep)), 0) //nolint:gosec // a system call takes pointers
	runtime.KeepAlive(header)
	runtime.KeepAlive(&keep)
	if errno != 0 {
		return fmt.Errorf("cannot give up capabilities: %w", errno)
	}
	return nil
}
