package tor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// Reasons of faults.
const (
	ReasonNotFound      = "TOR_NOT_FOUND"
	ReasonTooOld        = "TOR_TOO_OLD"
	ReasonUnusable      = "TOR_UNUSABLE"
	ReasonConfig        = "TOR_CONFIG_INVALID"
	ReasonBridge        = "BRIDGE_INVALID"
	ReasonTransport     = "PLUGGABLE_TRANSPORT_INVALID"
	ReasonStartFailed   = "TOR_START_FAILED"
	ReasonPrivateBroken = "PRIVATE_NETWORK_BROKEN"
)

const installHint = "install it (Debian, Ubuntu: apt-get install tor), or say where it is"

// askTimeout is how long tor may take to say its version; it takes a hundredth of a second on an idle machine.
const askTimeout = 20 * time.Second

// maxAnswer bounds what a program that is asked for its version may say.
const maxAnswer = 64 << 10

// outsidePath is where packages put tor and where the PATH of an ordinary user may not look.
var outsidePath = []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin"}

// Program is a tor that can be used.
type Program struct {
	Path    string // absolute
	Version Version
	modules map[string]bool
}

// PoW tells whether this tor knows the proof of work of onion services: 0.4.8 and newer, built with GPL code. Its configuration file takes it then.
func (p Program) PoW() bool { return p.modules["pow"] && !p.Version.Before(powSince) }

// PoWByControl tells whether ADD_ONION takes PoWDefensesEnabled (0.4.9.2 and newer); older ones call it a syntax error.
func (p Program) PoWByControl() bool { return p.modules["pow"] && !p.Version.Before(powControlSince) }

// has tells whether tor was built with a module, as tor --list-modules names them.
func (p Program) has(module string) bool { return p.modules[module] }

// Find looks for tor: at path, or, where path is empty, in PATH and where packages put it. It runs the program to learn its version, so it blocks for
// as long as that takes, some seconds on a busy machine. Faults: TOR_NOT_FOUND, TOR_TOO_OLD, TOR_UNUSABLE (it is there and is no tor, or cannot be run).
func Find(path string) (Program, error) {
	if path == "" {
		path = "tor"
	}
	found, err := lookUp(path, outsidePath)
	if err != nil {
		return Program{}, err
	}
	said, err := ask(found, "--version")
	if err != nil {
		return Program{}, fault.FailedPrecondition(ReasonUnusable, "%s did not say its version: is it tor? %s", found, installHint).Because(err)
	}
	v, err := ParseVersion(said)
	if err != nil {
		return Program{}, fault.FailedPrecondition(ReasonUnusable, "%s is not tor, by its answer to --version: %s", found, installHint).Because(err)
	}
	if v.Before(MinVersion) {
		return Program{}, fault.FailedPrecondition(ReasonTooOld,
			"%s is tor %s, and %s is the oldest that protects the guards of onion services: install a newer one (Debian: from deb.torproject.org)", found, v, MinVersion)
	}
	p := Program{Path: found, Version: v}
	// A tor without --list-modules is older than MinVersion; one that fails here has no optional parts that we know of.
	if said, err := ask(found, "--list-modules"); err == nil {
		p.modules = parseModules(said)
	}
	return p, nil
}

// lookUp finds a program by its path, or by its name in PATH and then in more.
func lookUp(name string, more []string) (string, error) {
	found, err := exec.LookPath(name)
	if err == nil || errors.Is(err, exec.ErrDot) {
		if abs, err := filepath.Abs(found); err == nil {
			return abs, nil
		}
	}
	if strings.ContainsRune(name, filepath.Separator) {
		info, statErr := os.Stat(name)
		switch {
		case statErr == nil && info.IsDir():
			return "", fault.NotFound(ReasonNotFound, "%s is a directory and not a program: give the path of the program in it", name)
		case statErr == nil:
			return "", fault.FailedPrecondition(ReasonUnusable, "%s cannot be run: make it executable, or give another path", name)
		}
		return "", fault.NotFound(ReasonNotFound, "there is no %s: %s", name, installHint)
	}
	for _, dir := range more {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fault.NotFound(ReasonNotFound, "%s is not in PATH (%s), nor in %s: %s", name, os.Getenv("PATH"), strings.Join(more, ", "), installHint)
}

// ask runs a program for what it says.
func ask(path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	var out capped
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = environ()
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, clip(lastLine(string(out.b)), 200))
	}
	return string(out.b), nil
}

// environ is this process's environment without what would let tor speak to this process's own supervisor.
func environ() (out []string) {
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID":
		default:
			out = append(out, kv)
		}
	}
	return out
}

// parseModules reads the answer of tor --list-modules: lines of "name: yes" or "name: no".
func parseModules(s string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(s) {
		if name, has, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(has) == "yes" {
			out[strings.TrimSpace(name)] = true
		}
	}
	return out
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// capped keeps the first bytes of what is written to it.
type capped struct{ b []byte }

func (c *capped) Write(p []byte) (int, error) {
	c.b = append(c.b, p[:min(len(p), maxAnswer-len(c.b))]...)
	return len(p), nil
}
