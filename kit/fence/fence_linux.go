package fence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// fallback are the tunnels that the kernel puts into every new namespace once their modules are loaded. They are down and lead to nowhere but the
// namespace itself.
var fallback = []string{"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}

// Observe tells whether this process can reach a network. An interface that is down counts as one that leads somewhere, because it may come up.
func Observe() (Fence, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return Fence{}, fmt.Errorf("look for network interfaces: %w", err)
	}
	return observed(interfaces), nil
}

func observed(interfaces []net.Interface) (f Fence) {
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 && slices.Contains(fallback, i.Name) {
			continue
		}
		f.Interfaces = append(f.Interfaces, i.Name)
	}
	slices.Sort(f.Interfaces)
	f.Enclosed = len(f.Interfaces) == 0
	return f
}

// Enclose has cmd start enclosed. Its attributes and its environment must be as they are to be: what is set later takes them away. The user
// and the group stay what they are, and are the only ones there.
func (w Way) Enclose(cmd *exec.Cmd) {
	if w == Open {
		return
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = resolving(cmd.Env)
	if w == Inherited {
		return
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	a := cmd.SysProcAttr
	a.Cloneflags |= syscall.CLONE_NEWNET
	if w == UserNamespace {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	}
}

// Available finds out how processes can be enclosed here: each way is tried with a real process, which is this program and does nothing else. Where
// none works it is a fault with the reason Unavailable that says why, and how to get a fence. It takes some 10 ms a try, and 10 s each at most.
func Available(ctx context.Context) (Way, error) {
	err := attempt(ctx, UserNamespace)
	if err == nil {
		return UserNamespace, nil
	}
	if os.Geteuid() == 0 && attempt(ctx, NetworkNamespace) == nil {
		return NetworkNamespace, nil
	}
	if ctx.Err() != nil {
		return Open, ctx.Err()
	}
	// Last, because a machine without an interface may get one.
	if f, err := Observe(); err == nil && f.Enclosed {
		return Inherited, nil
	}
	return Open, unavailable(why(err, readSysctl), err)
}

const (
	// trialName is what the program is called when it only looks around: no command line of a user's gives it that name.
	trialName = "shallot-fence-trial"
	trialTime = 10 * time.Second
)

// The trial runs before anything else of the program does, so that no program has to know of it.
func init() {
	if len(os.Args) == 1 && os.Args[0] == trialName {
		os.Exit(trial())
	}
}

func trial() int {
	f, err := Observe()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func attempt(ctx context.Context, w Way) error {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{trialName}
	cmd.Env = []string{}
	cmd.WaitDelay = time.Second
	w.Enclose(cmd)
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	var f Fence
	if err := json.Unmarshal(out, &f); err != nil {
		return fmt.Errorf("a process that was enclosed said %.80q: %w", out, err)
	}
	if !f.Enclosed {
		return fmt.Errorf("a process that was enclosed still has %s", strings.Join(f.Interfaces, ", "))
	}
	return nil
}

func readSysctl(name string) string {
	data, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// why says what keeps namespaces from this user, and what would give them.
func why(err error, sysctl func(string) string) string {
	for _, s := range []struct{ name, bad, good string }{
		{"kernel.unprivileged_userns_clone", "0", "1"},
		{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
		{"user.max_user_namespaces", "0", "10000"},
		{"user.max_net_namespaces", "0", "10000"},
	} {
		if sysctl(s.name) == s.bad {
			return fmt.Sprintf("%[1]s is %[2]s, and 'sysctl -w %[1]s=%[3]s' as root allows it", s.name, s.bad, s.good)
		}
	}
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EUSERS):
		return "there are as many namespaces as user.max_user_namespaces and user.max_net_namespaces allow"
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES):
		return "this user may not make user namespaces, as in most containers"
	case errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS):
		return "this kernel has no user namespaces"
	}
	return "user and network namespaces do not work"
}
