package compose

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/shallot-net/shallot/kit/config/helptext"
	"github.com/shallot-net/shallot/test/internal/dev"
)

var update = flag.Bool("update", false, "write docs/settings.md anew")

var processes = []string{"broker", "onion", "discovery", "metric", "task", "node", "gateway"}

// settings asks a program itself what can be set.
func settings(t *testing.T, process string) []helptext.Setting {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "shallot-"+process), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	help, err := helptext.Parse(string(out))
	if err != nil {
		t.Fatal(err)
	}
	if len(help.Settings) < 5 {
		t.Fatalf("the help of %s lists %d settings", process, len(help.Settings))
	}
	return help.Settings
}

// TestEverySettingIsInTheEnvironmentAndInAFile: docs/settings.md lists what the programs have, and each has a variable. `make settings` writes it.
func TestEverySettingIsInTheEnvironmentAndInAFile(t *testing.T) {
	const page = "../../docs/settings.md"
	var b bytes.Buffer
	b.WriteString(`# Settings

Every process of a node reads its settings from four places, the later over the earlier: its default, its section of ` + "`HOME/config.yaml`" + ` (or of the
file that ` + "`--config`" + ` names), the environment, and its command line. In a file a dot is a level: ` + "`provider.slots`" + ` of task is

    task:
      provider:
        slots: 4

What is unknown or cannot be is refused at the start, with the name, the value and the place that it came from. Secrets are files, and the
settings name them.

This page is what the programs say of themselves (` + "`shallot-SERVICE --help`" + `): ` + "`make settings`" + ` writes it.
`)
	for _, process := range processes {
		fmt.Fprintf(&b, "\n## %s\n\n| key | variable | default | what it is |\n| --- | --- | --- | --- |\n", process)
		for _, s := range settings(t, process) {
			key := strings.TrimPrefix(s.Flag, "--")
			switch {
			case key == "health", key == "version": // what to do, and no settings
				continue
			case s.Env != "SHALLOT_"+strings.ToUpper(process+"_"+strings.ReplaceAll(strings.TrimSuffix(key, " FILE"), ".", "_")):
				t.Errorf("%s of %s has the variable %q", key, process, s.Env)
			}
			value := s.Value
			if value != "" {
				value = "`" + value + "`"
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", key, s.Env, value, strings.ReplaceAll(s.What, "|", "\\|"))
		}
	}
	if *update {
		if err := os.WriteFile(page, b.Bytes(), 0o644); err != nil { //nolint:gosec // a page for everybody
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(page); err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("docs/settings.md is not what the programs say (%v): make settings", err)
	}
}

// service is the part of a service of a compose file that is judged here.
type service struct {
	Image       string            `yaml:"image"`
	Environment map[string]string `yaml:"environment"`
	User        string            `yaml:"user"`
	ReadOnly    bool              `yaml:"read_only"`
	CapDrop     []string          `yaml:"cap_drop"`
	CapAdd      []string          `yaml:"cap_add"`
	Security    []string          `yaml:"security_opt"`
	Grace       string            `yaml:"stop_grace_period"`
	Pids        int               `yaml:"pids_limit"`
	Memory      string            `yaml:"mem_limit"`
	Health      map[string]any    `yaml:"healthcheck"`
	Privileged  bool              `yaml:"privileged"`
	Profiles    []string          `yaml:"profiles"`
}

func files(t *testing.T) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(deploy, "*.yml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no compose files: %v", err)
	}
	all := map[string][]byte{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(p)] = data
	}
	return all
}

func services(t *testing.T, data []byte) map[string]service {
	t.Helper()
	var f struct {
		Services map[string]service `yaml:"services"`
	}
	if err := yaml.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	return f.Services
}

// TestComposeSetsWhatThereIs: a variable that a service does not know would keep it from starting.
func TestComposeSetsWhatThereIs(t *testing.T) {
	known := map[string]bool{}
	for _, process := range processes {
		for _, s := range settings(t, process) {
			known[s.Env] = true
		}
	}
	for file, data := range files(t) {
		for name, s := range services(t, data) {
			for variable := range s.Environment {
				if strings.HasPrefix(variable, "SHALLOT_") && !known[variable] {
					t.Errorf("%s: %s sets %s, which no process knows", file, name, variable)
				}
			}
		}
	}
	var sections map[string]map[string]any
	data, err := os.ReadFile(filepath.Join(deploy, "config.yaml"))
	if err == nil {
		err = yaml.Unmarshal(data, &sections)
	}
	if err != nil || len(sections) > 0 {
		t.Errorf("config.yaml sets %v as it is shipped, %v", sections, err)
	}
}

// variables of a compose file, with their defaults.
var variables = regexp.MustCompile(`\$\{([A-Z_]+)(?::-((?:[^${}]|\$\{[^}]*\})*))?\}`)

// TestEnvExampleSaysEverything: each variable that a compose file reads is in .env.example, with the default that it has there, and nothing else is.
func TestEnvExampleSaysEverything(t *testing.T) {
	example, err := os.ReadFile(filepath.Join(deploy, ".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(example)) {
		if name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "#"), "="); ok && !strings.Contains(name, " ") {
			said[name] = value
		}
	}
	read := map[string]bool{}
	var look func(file, text string)
	look = func(file, text string) {
		for _, m := range variables.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(m[1], "COMPOSE_") { // Compose sets it itself
				continue
			}
			read[m[1]] = true
			value, ok := said[m[1]]
			if !ok {
				t.Errorf("%s reads %s, of which .env.example says nothing", file, m[1])
			}
			if inner := strings.Contains(m[2], "${"); inner {
				look(file, m[2])
			} else if value != m[2] {
				t.Errorf("%s: %s is %q when it is not set, and .env.example says %q", file, m[1], m[2], value)
			}
		}
	}
	for file, data := range files(t) {
		look(file, string(data))
	}
	known := map[string]bool{}
	for _, process := range processes {
		for _, s := range settings(t, process) {
			known[s.Env] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		if !read[name] && !known[name] {
			t.Errorf(".env.example has %s, which nobody reads", name)
		}
	}
}

// TestServicesAreShutIn: of every service that is defined whole, whatever the file that does it.
func TestServicesAreShutIn(t *testing.T) {
	for file, data := range files(t) {
		for name, s := range services(t, data) {
			if s.Image == "" { // laid over another
				continue
			}
			if !s.ReadOnly || s.Privileged || !slices.Contains(s.CapDrop, "ALL") || len(s.CapAdd) > 0 || !slices.Contains(s.Security, "no-new-privileges:true") {
				t.Errorf("%s: %s may do more than it needs: %+v", file, name, s)
			}
			if s.Pids < 1 || s.Memory == "" {
				t.Errorf("%s: %s has no limit of processes or memory", file, name)
			}
			if user, _, _ := strings.Cut(s.User, ":"); user == "" || user == "0" || user == "root" {
				t.Errorf("%s: %s runs as %q", file, name, s.User)
			}
			if s.Grace == "" || len(s.Grace) > 2 {
				t.Errorf("%s: %s has %q to stop, and should have less than ten seconds", file, name, s.Grace)
			}
			if s.Health["test"] == nil && !slices.Contains(s.Profiles, "cli") {
				t.Errorf("%s: nobody asks %s how it is", file, name)
			}
		}
	}
}
