package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/findings"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/version"
)

// flagError is how programs made with the standard library's flags end when they do not know one.
const flagError = 2

// executor is started by the task service, not by the supervisor.
const executor = "executor-wasm"

// binaries looks for every program and asks it for its version.
func (d *Doctor) binaries(ctx context.Context) {
	names := d.expected()
	if d.role == supervisor.Provider {
		names = append(names, executor)
	}
	found := make([]string, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { found[i], errs[i] = d.versionOf(ctx, name) })
	}
	wg.Wait()
	versions := map[string][]string{version.String(): {"shallot"}}
	bad := false
	for i, name := range names {
		var exit *exec.ExitError
		if name == executor && errors.As(errs[i], &exit) && exit.ExitCode() == flagError {
			continue // it runs, and is not for people: it need not know the question
		}
		if errs[i] != nil {
			d.wrong("programs", "build them with 'make build', or install them beside shallot again", "%v", errs[i])
			bad = true
			continue
		}
		versions[found[i]] = append(versions[found[i]], "shallot-"+name)
	}
	if len(versions) > 1 {
		var parts []string
		for v, who := range versions {
			parts = append(parts, v+": "+strings.Join(who, ", "))
		}
		sort.Strings(parts)
		d.wrong("programs", "install all programs of one version, then restart the node", "they are of different versions: %s", strings.Join(parts, "; "))
		return
	}
	if !bad {
		d.ok("programs", "all %d found, version %s", len(names), version.String())
	}
}

// versionTimeout is long: a machine under load takes its time to start seven programs.
const versionTimeout = 10 * time.Second

// versionOf runs a program with --version; it prints "shallot-NAME VERSION".
func (d *Doctor) versionOf(ctx context.Context, name string) (string, error) {
	path, err := d.Finder.Find(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = checkTimeout
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s does not say its version: %w", path, err)
	}
	v, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "shallot-"+name+" ")
	if !ok || strings.ContainsAny(v, "\n ") {
		return "", fmt.Errorf("%s does not say its version: it printed %.80q", path, out)
	}
	return v, nil
}

// permissions: nobody else may enter the home, where keys and results are.
func (d *Doctor) permissions() {
	bad := false
	for _, dir := range []string{d.Home.Dir, filepath.Join(d.Home.Dir, "state"), filepath.Join(d.Home.Dir, "logs"), filepath.Join(d.Home.Dir, "run")} {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not made yet
		}
		if err != nil {
			d.wrong("permissions", "make it readable for this user", "cannot look at %s: %v", dir, err)
			bad = true
			continue
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			d.wrong("permissions", "chmod 700 "+dir, "%s is open to others (mode %04o)", dir, mode)
			bad = true
		}
		if uid, ok := owner(info); ok && uid != os.Geteuid() {
			d.wrong("permissions", "chown it to the user that runs the node", "%s belongs to user %d, and this is user %d", dir, uid, os.Geteuid())
			bad = true
		}
	}
	if !bad {
		d.ok("permissions", "%s is this user's alone", d.Home.Dir)
	}
}

func (d *Doctor) sockets() {
	longest := ""
	for _, p := range d.expected() {
		if s := d.Home.Socket(p); len(s) > len(longest) {
			longest = s
		}
	}
	if len(longest) > home.MaxSocketPath {
		d.wrong("sockets", "use a home with a shorter path", "the socket path %s has %d bytes and may have %d", longest, len(longest), home.MaxSocketPath)
		return
	}
	d.ok("sockets", "in %s", filepath.Dir(longest))
}

func (d *Doctor) disk() { d.add(findings.Disk(d.Home.Dir)) }

func (d *Doctor) clock() { d.add(findings.Clock(d.Home.Dir, d.Now())) }

// locks: each process locks its part of the home. One that is held by a stranger keeps the node's own process out.
func (d *Doctor) locks() {
	mine := map[int]bool{d.state.SupervisorPID: true}
	for _, p := range d.state.Processes {
		mine[p.PID] = true
	}
	files, _ := filepath.Glob(filepath.Join(d.Home.Dir, "state", "*", "lock"))
	bad := false
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || !supervisor.Held(f) {
			continue
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
		if pid > 0 && !mine[pid] && len(d.state.Processes) > 0 {
			d.wrong("locks", fmt.Sprintf("end that process: kill %d", pid), "%s is held by process %d, which does not belong to this node's supervisor", f, pid)
			bad = true
		}
	}
	if !bad {
		d.ok("locks", "no store is held by a stranger")
	}
}
