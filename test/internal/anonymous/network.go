// Package anonymous runs networks of anonymous nodes for tests: `shallot dev --anonymous` with its private Tor network, and with eyes on it. The system calls of nodes are written down
// by strace and judged, and the whole may be put where every packet is seen that would leave the machine.
package anonymous

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/hostile"
)

// Config says what network is wanted.
type Config struct {
	Bin string // the folder of the binaries
	Dir string // for the network and all that is seen of it; its path must be short, since sockets are in it
	// Providers and Consumers of the network.
	Providers, Consumers int
	// Traced are the nodes whose processes run under strace; of them, all but tor and the gateway.
	Traced []string
	// Watched puts the network where it has one way out, which is watched; see Packets. Its nodes are not fenced then: what keeps them in is the program.
	Watched bool
	Args    []string // further arguments of `shallot dev`
	Log     func(line string)
}

// Network is a running `shallot dev --anonymous`.
type Network struct {
	*dev.Network
	cfg Config
}

// Need tells that a test cannot be done without programs that are not here, and leaves it out; in CI they must be here.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		path := os.Getenv("PATH") + ":/usr/sbin:/sbin"
		if !inPath(p, path) {
			leaveOut(t, "%s is not installed; to get it: apt-get install %s", p, packageOf(p))
		}
	}
}

func leaveOut(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf("left out: "+format, args...)
}

func inPath(program, path string) bool {
	for _, dir := range filepath.SplitList(path) {
		if info, err := os.Stat(filepath.Join(dir, program)); err == nil && info.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

func packageOf(program string) string {
	if program == "ip" {
		return "iproute2"
	}
	return program
}

// Start starts a network and returns when it is ready, which takes half a minute. Stop it.
func Start(ctx context.Context, cfg Config) (*Network, error) {
	n := &Network{cfg: cfg}
	bin, err := n.wrap()
	if err != nil {
		return nil, err
	}
	c := dev.Config{Bin: bin, Dir: filepath.Join(cfg.Dir, "net"), Providers: cfg.Providers, Consumers: cfg.Consumers, Log: cfg.Log, Args: append([]string{"--anonymous"}, cfg.Args...)}
	if cfg.Watched {
		c.Args = append(c.Args, "--unfenced")
		c.Command = func(cmd *exec.Cmd) { Watch(cmd, n.packets()) }
	}
	n.Network, err = dev.Start(ctx, c)
	return n, err
}

func (n *Network) traces() string  { return filepath.Join(n.cfg.Dir, "traces") }
func (n *Network) packets() string { return filepath.Join(n.cfg.Dir, "packets") }

// enclosed are the processes that must not reach anything but Unix sockets. The gateway listens for people's programs, and tor is the way out.
var enclosed = []string{"onion", "broker", "discovery", "metric", "task", "node"}

// wrap makes a folder of binaries in which those of traced nodes run under strace. The supervisor looks for programs beside itself.
func (n *Network) wrap() (string, error) {
	bin := filepath.Join(n.cfg.Dir, "bin")
	if err := errors.Join(os.Mkdir(bin, 0o700), os.Mkdir(n.traces(), 0o700)); err != nil {
		return "", err
	}
	if err := copyFile(filepath.Join(n.cfg.Bin, "shallot"), filepath.Join(bin, "shallot")); err != nil { // a link would be followed
		return "", err
	}
	for _, name := range []string{"gateway", "executor-wasm"} {
		if err := os.Symlink(filepath.Join(n.cfg.Bin, "shallot-"+name), filepath.Join(bin, "shallot-"+name)); err != nil {
			return "", err
		}
	}
	scripts := map[string]string{"tor": n.torScript()}
	for _, name := range enclosed {
		scripts["shallot-"+name] = n.script(name)
	}
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700); err != nil {
			return "", err
		}
	}
	return bin, nil
}

// torScript runs tor, but not while the test holds it; see Offline. What UpBehind has left is added to its configuration: a node that `shallot up` starts would be of the public network.
func (n *Network) torScript() string {
	return fmt.Sprintf("#!/bin/sh\nhome=\"${2%%/tor/torrc}\"\nwhile [ -n \"$2\" ] && [ -e \"$home/%s\" ]; do sleep 0.1; done\n"+
		"[ -z \"$2\" ] || [ ! -e \"$home/%s\" ] || grep -q ^TestingTorNetwork \"$2\" || cat \"$home/%s\" >> \"$2\"\nexec %s \"$@\"\n", held, added, added, torProgram())
}

func torProgram() string {
	if program, err := exec.LookPath("tor"); err == nil {
		return program
	}
	return "/usr/sbin/tor"
}

// Files in a node's home: while held is there its tor does not start, and what is in added is of its configuration.
const (
	held  = "tor-is-held"
	added = "tor-has-also"
)

// script runs a program, or strace of it. The tracer is not the program's parent but a process apart (-DD), so that signals and the pid are the program's; and the
// kernel stops it for those calls alone that are written down (--seccomp-bpf).
func (n *Network) script(process string) string {
	program := filepath.Join(n.cfg.Bin, "shallot-"+process)
	var s strings.Builder
	s.WriteString("#!/bin/sh\ncase \"$*\" in\n")
	for _, node := range n.cfg.Traced {
		fmt.Fprintf(&s, "*/%s\\ *|*/%s) exec strace -DD -f --seccomp-bpf -qq -e %s -e signal=none -o %s/%s.%s.$$ %s \"$@\";;\n", node, node, traced, n.traces(), node, process, program)
	}
	fmt.Fprintf(&s, "esac\nexec %s \"$@\"\n", program)
	return s.String()
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// Leaks judges the system calls of all traced nodes so far. seen has node.process.
func (n *Network) Leaks() (leaks []Leak, seen map[string]Calls, err error) {
	return JudgeAll(n.traces())
}

// Packets are those that would have left the machine, one a line.
func (n *Network) Packets() ([]string, error) { return readPackets(n.packets()) }

// Tor is how a node's tor is reached.
func (n *Network) Tor(node string) (hostile.Tor, error) {
	h, err := home.Find(n.Home(node))
	if err != nil {
		return hostile.Tor{}, err
	}
	return hostile.Tor{Socks: h.Socket("tor-socks"), Control: h.Socket("tor-control"), Cookie: filepath.Join(h.Dir, "tor", "data", "control_auth_cookie")}, nil
}

// KillTor ends a node's tor at once. The supervisor starts it again.
func (n *Network) KillTor(node string) error {
	pid, err := n.torOf(node)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// Offline ends a node's tor, and it does not come back before the function that is returned is called.
func (n *Network) Offline(node string) (back func() error, err error) {
	file := filepath.Join(n.Home(node), held)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	return func() error { return os.Remove(file) }, n.KillTor(node)
}

// torOf finds a node's tor by its configuration on its command line.
func (n *Network) torOf(node string) (int, error) {
	torrc := filepath.Join(n.Home(node), "tor", "torrc")
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range all {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		if argv := strings.Split(string(raw), "\x00"); len(argv) > 2 && argv[1] == "-f" && argv[2] == torrc {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, fmt.Errorf("%s has no tor", node)
}
