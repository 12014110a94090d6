package packages

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/deployment"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/release"
)

const (
	image    = "debian:bookworm-slim"
	nodeHome = "/var/lib/shallot/node"
	settings = "/etc/shallot/shallot.env"
)

// machine is a container with Debian and nothing else.
type machine struct {
	t    *testing.T
	name string
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := deployment.Docker(context.WithoutCancel(t.Context()), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// start makes it. Its packages are in /packages.
func start(t *testing.T, network, name string, packages ...string) *machine {
	t.Helper()
	m := &machine{t, network + "-" + name}
	_, _ = deployment.Docker(t.Context(), "rm", "--force", m.name) // of a run that was killed
	docker(t, "run", "--detach", "--init", "--name", m.name, "--network", network, "--entrypoint", "sleep", image, "infinity")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.sh("tail -n 20 /tmp/*.log 2>/dev/null || true"))
		}
		docker(t, "rm", "--force", "--volumes", m.name)
	})
	m.sh("mkdir /packages; rm -f /etc/dpkg/dpkg.cfg.d/docker") // by which slim images leave out manual pages and most of what is in /usr/share/doc
	for _, p := range packages {
		docker(t, "cp", p, m.name+":/packages/")
	}
	return m
}

// sh runs a line as root.
func (m *machine) sh(line string) string {
	m.t.Helper()
	return docker(m.t, "exec", m.name, "sh", "-c", line)
}

// shallot runs the command as the node's user.
func (m *machine) shallot(args ...string) string {
	m.t.Helper()
	return docker(m.t, append([]string{"exec", "--user", "shallot", m.name, "shallot", "--home", nodeHome}, args...)...)
}

// until waits for a text in what the command says.
func (m *machine) until(want string, args ...string) {
	m.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		out, err := deployment.Docker(m.t.Context(), append([]string{"exec", "--user", "shallot", m.name, "shallot", "--home", nodeHome}, args...)...)
		if err == nil && strings.Contains(out, want) {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			m.t.Fatalf("%s: %v says no %q: %s, %v", m.name, args, want, out, err)
		}
	}
}

// variables of a file as EnvironmentFile= reads it.
func variables(text string) (out []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// unit starts one as systemd would: its command with the variables of its file put in, as its user, under its umask, if its condition holds. What shuts it in is not tried here: systemd-analyze looks
// at that in test/watch.
func (m *machine) unit(name string) {
	m.t.Helper()
	has := map[string]string{}
	for line := range strings.Lines(m.sh("cat /usr/lib/systemd/system/" + name)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			has[key] = value
		}
	}
	env := variables(m.sh("cat " + has["EnvironmentFile"]))
	value := func(key string) string {
		for _, v := range slices.Backward(env) {
			if k, value, _ := strings.Cut(v, "="); k == key {
				return value
			}
		}
		return ""
	}
	args := []string{"exec", "--user", has["User"] + ":" + has["Group"]}
	for _, v := range env {
		args = append(args, "--env", v)
	}
	if condition := has["ExecCondition"]; condition != "" {
		command := strings.TrimSuffix(strings.TrimPrefix(condition, "/bin/sh -c '"), "'")
		if _, err := deployment.Docker(m.t.Context(), append(slices.Clone(args), m.name, "sh", "-c", command)...); err != nil {
			return
		}
	}
	command := os.Expand(has["ExecStart"], value)
	line := fmt.Sprintf("umask %s; exec %s >>/tmp/%s.log 2>&1", has["UMask"], command, name)
	docker(m.t, append(append(args, "--detach"), m.name, "sh", "-c", line)...)
}

// node starts the units that the target takes along.
func (m *machine) node() {
	m.t.Helper()
	for _, link := range strings.Fields(m.sh("ls /usr/lib/systemd/system/shallot.target.wants")) {
		m.unit(path.Base(link))
	}
	m.until("ready:       yes", "node")
}

// stop ends all processes of the node, as systemd does: a signal, and a wait.
func (m *machine) stop() {
	m.t.Helper()
	m.sh(`pids=$(for p in /proc/[0-9]*; do case "$(tr '\0' ' ' <"$p/cmdline" 2>/dev/null)" in /usr/bin/shallot*) echo "${p#/proc/}" ;; esac; done)
		[ -z "$pids" ] || kill -TERM $pids
		for p in $pids; do n=0; while [ -d "/proc/$p" ] && [ "$(cut -d' ' -f3 "/proc/$p/stat" 2>/dev/null)" != Z ]; do n=$((n+1)); [ "$n" -lt 200 ] || exit 1; sleep 0.1; done; done`)
}

// files are those of the machine, without what programs of Debian keep about packages, and what is no file of a disk.
func (m *machine) files() []string {
	m.t.Helper()
	return strings.Split(m.sh(`find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /packages -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \) -prune -o -print | LC_ALL=C sort`), "\n")
}

// debs are the package of the previous release's programs and that of this one's.
func debs(t *testing.T) (previous, current string) {
	t.Helper()
	dir := t.TempDir()
	now := filepath.Join(dir, "bin")
	script(t, "programs.sh", nil, "linux", runtime.GOARCH, "v9.0.0", now)
	script(t, "papers.sh", nil, now, "v9.0.0", filepath.Join(dir, "papers"))
	for _, p := range []struct {
		programs, version string
		env               []string
	}{{release.Programs(t), "v0.0.1", []string{"UNITS=" + unitsOfBefore(t)}}, {now, "v9.0.0", nil}} {
		script(t, "pack.sh", p.env, p.programs, filepath.Join(dir, "papers"), runtime.GOARCH, p.version, dir)
	}
	return filepath.Join(dir, "shallot_0.0.1_"+runtime.GOARCH+".deb"), filepath.Join(dir, "shallot_9.0.0_"+runtime.GOARCH+".deb")
}

// unitsOfBefore are today's units, without what the programs of the previous release do not know: it had no package, and a package has the units of its own programs.
func unitsOfBefore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(release.Top(t), "deploy", "systemd"))); err != nil {
		t.Fatal(err)
	}
	gateway := filepath.Join(dir, "shallot-gateway.service")
	unit, err := os.ReadFile(gateway)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gateway, []byte(strings.Replace(string(unit), " --mode ${SHALLOT_MODE}", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDebianPackage: the previous release is installed on two machines, works, is upgraded with its tasks, and goes without a trace. It is `make test-package`.
func TestDebianPackage(t *testing.T) {
	if os.Getenv("SHALLOT_PACKAGE") == "" {
		t.Skip("it needs a Docker engine and some minutes: make test-package")
	}
	needDpkg(t)
	if out, err := exec.CommandContext(t.Context(), "docker", "version").CombinedOutput(); err != nil {
		t.Fatalf("there is no Docker engine: %v\n%s", err, out)
	}
	previous, current := debs(t)
	const network = "shallot-test-package"
	_, _ = deployment.Docker(t.Context(), "network", "rm", network) // of a run that was killed
	docker(t, "network", "create", network)
	t.Cleanup(func() { docker(t, "network", "rm", network) })
	provider, consumer := start(t, network, "provider", previous, current), start(t, network, "consumer", previous, current)
	before := consumer.files()

	for _, m := range []*machine{provider, consumer} {
		if said := m.sh("dpkg --install /packages/shallot_0.0.1_*.deb 2>&1"); !strings.Contains(said, "systemctl enable --now shallot.target") {
			t.Errorf("%s: it does not say how to go on: %s", m.name, said)
		}
		if got := m.sh("stat -c '%U:%G %a' /etc/shallot " + settings + " /var/lib/shallot | tr '\n' ' '"); got != "root:shallot 750 root:shallot 640 shallot:shallot 700" {
			t.Errorf("%s: folders are %s", m.name, got)
		}
		if got := m.sh("getent passwd shallot"); !strings.HasSuffix(got, ":/var/lib/shallot:/usr/sbin/nologin") {
			t.Errorf("the user is %s", got)
		}
	}
	provider.node()
	consumer.sh(`sed -i -e 's/^SHALLOT_ROLE=.*/SHALLOT_ROLE=consumer/' -e 's/^SHALLOT_BROKER_/#&/' -e 's|^#SHALLOT_NODE_BOOTSTRAP=.*|SHALLOT_NODE_BOOTSTRAP=` + provider.address() + `|' ` + settings)
	consumer.node()
	consumer.until("p", "peers", "--capability", "sum", "--output", "json")
	if got := consumer.shallot("run", "sum", "0.1", "0.2"); got != "0.3" {
		t.Errorf("the sum is %q", got)
	}

	// New programs are there while the old ones run; then each machine's node is stopped and started, as the scripts have systemd do.
	for _, m := range []*machine{provider, consumer} {
		m.sh("dpkg --install /packages/shallot_9.0.0_*.deb")
		m.stop()
		m.node()
		if got := m.shallot("version"); got != "v9.0.0" {
			t.Errorf("%s has version %s", m.name, got)
		}
	}
	if got := consumer.sh(`for p in /usr/bin/shallot*; do zgrep -q '^\.TH' "/usr/share/man/man1/${p##*/}.1.gz" 2>/dev/null || zgrep -q '^\.TH' "/usr/share/man/man8/${p##*/}.8.gz" || echo "$p"; done`); got != "" {
		t.Errorf("no manual pages of %s", got)
	}
	if got := consumer.sh("grep -c ^SHALLOT_ROLE=consumer " + settings); got != "1" {
		t.Error("the upgrade has changed the file of settings")
	}
	if got := consumer.shallot("task", "ls"); !strings.Contains(got, "COMPLETED") {
		t.Errorf("the task from before the upgrade is gone: %s", got)
	}
	if got := consumer.shallot("run", "sum", "1", "2", "3"); got != "6" {
		t.Errorf("the sum is %q", got)
	}
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	docker(t, "cp", filepath.Join(bin, "examples", "wordcount.wasm"), consumer.name+":/packages/")
	consumer.sh("chmod -R a+rX /packages")
	if got := consumer.shallot("run", "wasm", "/packages/wordcount.wasm", "--stdin", "/usr/share/doc/shallot/README.md", "--", "-top", "1"); !strings.Contains(got, " words, ") {
		t.Errorf("the wasm program said %q", got)
	}

	provider.stop()
	scripts(t, provider)

	consumer.stop()
	consumer.sh("dpkg --remove shallot")
	if got := consumer.sh("ls /usr/bin/shallot* 2>/dev/null | wc -l; ls -d " + nodeHome + " " + settings); got != "0\n"+settings+"\n"+nodeHome {
		t.Errorf("after removal there are %s", got)
	}
	consumer.sh("dpkg --purge shallot")
	after := consumer.files()
	for _, f := range after {
		if _, found := slices.BinarySearch(before, f); !found && !slices.Contains([]string{"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-"}, f) {
			t.Errorf("%s is left", f)
		}
	}
	for _, f := range before {
		if _, found := slices.BinarySearch(after, f); !found {
			t.Errorf("%s was there before, and is gone", f)
		}
	}
	if got := consumer.sh("getent passwd shallot; getent group shallot; dpkg --list shallot 2>/dev/null | grep -c '^ii' || true"); got != "0" {
		t.Errorf("user, group or package are left: %s", got)
	}
}

// scripts has a stand-in for systemctl write down what the package's scripts ask of systemd: an upgrade restarts what runs, removal stops everything, and nothing else is started or stopped.
func scripts(t *testing.T, m *machine) {
	t.Helper()
	m.sh(`mkdir -p /run/systemd/system; printf '#!/bin/sh\necho "$@" >>/tmp/systemctl.log\n' >/usr/local/bin/systemctl; chmod +x /usr/local/bin/systemctl`)
	for _, step := range []struct{ command, verb string }{{"--install /packages/shallot_9.0.0_*.deb", "try-restart"}, {"--remove shallot", "stop"}} {
		m.sh("rm -f /tmp/systemctl.log; dpkg " + step.command)
		asked := strings.Split(m.sh("cat /tmp/systemctl.log"), "\n")
		for _, unit := range []string{"broker", "onion", "discovery", "metric", "task", "node", "gateway", "anonymous"} {
			if want := step.verb + " shallot-" + unit + ".service"; !slices.Contains(asked, want) {
				t.Errorf("dpkg %s does not ask systemd to %s", step.command, want)
			}
		}
		for _, line := range asked {
			if !strings.HasPrefix(line, step.verb+" shallot") && line != "--system daemon-reload" {
				t.Errorf("dpkg %s asks systemd to %s", step.command, line)
			}
		}
		if !slices.Contains(asked, "--system daemon-reload") {
			t.Errorf("after dpkg %s systemd does not look at the units again", step.command)
		}
	}
}

// address is one by which other machines of the network join.
func (m *machine) address() string {
	m.t.Helper()
	var node struct{ Addresses []string }
	out := m.shallot("node", "--show-addresses", "--output", "json")
	if err := json.Unmarshal([]byte(out), &node); err != nil {
		m.t.Fatalf("%v in %s", err, out)
	}
	for _, a := range node.Addresses {
		if strings.HasPrefix(a, "/ip4/") && !strings.HasPrefix(a, "/ip4/127.") {
			return a
		}
	}
	m.t.Fatalf("the provider has no address on the network: %s", out)
	return ""
}
