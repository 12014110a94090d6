package watch

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/test/internal/dev"
)

// exposure is what systemd-analyze may think of a unit at most, in tenths: 100 is a service that is shut in by nothing.
const (
	exposure     = 30
	exposureTask = 45 // executors make namespaces and compile
)

// setting is KEY=VALUE of a unit; an empty value takes back what was said before.
type setting struct{ key, value string }

func unit(t *testing.T, name string) (out []setting) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(deploy, "systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			out = append(out, setting{key, value})
		}
	}
	return out
}

func units(t *testing.T) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(deploy, "systemd", "*.service"))
	if err != nil || len(paths) < 8 {
		t.Fatal(paths, err)
	}
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return names
}

var flagName = regexp.MustCompile(`(?m)^\s*(--[a-z_.-]+)|[ ,](--[a-z-]+)\b`)

// TestUnitsSayWhatProgramsKnow: each flag of an ExecStart, and each variable of the file of settings, is one that the program's own help lists.
func TestUnitsSayWhatProgramsKnow(t *testing.T) {
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	helps := map[string]string{}
	help := func(program string, args ...string) string {
		key := program + strings.Join(args, " ")
		if helps[key] == "" {
			out, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), append(args, "--help")...).Output()
			if err != nil {
				t.Fatalf("%s --help: %v", program, err)
			}
			helps[key] = string(out)
		}
		return helps[key]
	}
	commands := 0
	for _, name := range append(units(t), "broker-anonymous.conf") {
		for _, s := range unit(t, name) {
			if s.key != "ExecStart" || s.value == "" {
				continue
			}
			commands++
			words := strings.Fields(s.value)
			program := filepath.Base(words[0])
			sub := []string{}
			if program == "shallot" {
				sub = words[1:2]
			}
			known := map[string]bool{}
			for _, m := range flagName.FindAllStringSubmatch(help(program, sub...), -1) {
				known[m[1]+m[2]] = true
			}
			for _, w := range words[1:] {
				if strings.HasPrefix(w, "--") && !known[w] {
					t.Errorf("%s gives %s the flag %s, which it does not know", name, program, w)
				}
			}
			if !slices.Contains(words, "--home") {
				t.Errorf("%s: %s has no home", name, program)
			}
		}
	}
	if commands < 9 {
		t.Errorf("only %d commands", commands)
	}
	data, err := os.ReadFile(filepath.Join(deploy, "systemd", "shallot.env"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		name, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "#"), "=")
		if !ok || strings.Contains(name, " ") || name == "SHALLOT_ROLE" || name == "SHALLOT_MODE" {
			continue
		}
		process := strings.ToLower(strings.Split(name, "_")[1])
		if !strings.Contains(help("shallot-"+process), name+" ") {
			t.Errorf("shallot.env sets %s, which shallot-%s does not know", name, process)
		}
	}
}

// TestUnitsAreShutIn: of every unit, and what only some have.
func TestUnitsAreShutIn(t *testing.T) {
	for _, name := range units(t) {
		has := map[string]string{}
		for _, s := range unit(t, name) {
			has[s.key] = s.value
		}
		for key, want := range map[string]string{"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "CapabilityBoundingSet": "", "UMask": "0077", "User": "shallot"} {
			if got, ok := has[key]; !ok || got != want {
				t.Errorf("%s has %s=%s", name, key, got)
			}
		}
		for _, key := range []string{"MemoryMax", "TasksMax", "RestrictAddressFamilies", "TimeoutStopSec"} {
			if has[key] == "" {
				t.Errorf("%s has no %s", name, key)
			}
		}
		if network := name == "shallot-broker.service" || name == "shallot-gateway.service"; (has["PrivateNetwork"] == "yes") == network {
			t.Errorf("%s has PrivateNetwork=%s", name, has["PrivateNetwork"])
		}
	}
	if !slices.Contains(unit(t, "broker-anonymous.conf"), setting{"PrivateNetwork", "yes"}) {
		t.Error("an anonymous broker has the network")
	}
}

// TestSystemdTakesTheUnits: `systemd-analyze verify`, and `security`, which adds up what a unit may do. The anonymous broker is looked at with its drop-in.
func TestSystemdTakesTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("systemd-analyze is missing: apt-get install systemd")
		}
		t.Skip("left out: systemd-analyze verify and security, because systemd is missing (apt-get install systemd)")
	}
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	for _, anonymous := range []bool{false, true} {
		dir := t.TempDir()
		for _, name := range append(units(t), "shallot.target") {
			data, err := os.ReadFile(filepath.Join(deploy, "systemd", name))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(string(data), "/usr/local/bin", bin)), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if anonymous {
			d := filepath.Join(dir, "shallot-broker.service.d")
			data, err := os.ReadFile(filepath.Join(deploy, "systemd", "broker-anonymous.conf"))
			if err == nil {
				err = os.Mkdir(d, 0o700)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(d, "anonymous.conf"), []byte(strings.ReplaceAll(string(data), "/usr/local/bin", bin)), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range append(units(t), "shallot.target") {
			verify := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", filepath.Join(dir, name))
			verify.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":/lib/systemd/system:/usr/lib/systemd/system")
			if out, err := verify.CombinedOutput(); err != nil || strings.Contains(string(out), name+":") {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			if strings.HasSuffix(name, ".target") {
				continue
			}
			threshold := exposure
			if name == "shallot-task.service" || name == "shallot-anonymous.service" {
				threshold = exposureTask
			}
			security := exec.CommandContext(t.Context(), analyze, "security", "--no-pager", "--offline=true", "--threshold="+strconv.Itoa(threshold), filepath.Join(dir, name))
			security.Env = verify.Env
			if out, err := security.CombinedOutput(); err != nil {
				t.Errorf("%s is more exposed than it may be: %v\n%s", name, err, out)
			}
		}
	}
}
