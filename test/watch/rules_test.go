package watch

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const deploy = "../../deploy"

// promtool runs it, or leaves the test out where it is missing, which is a failure in CI.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is missing: apt-get install prometheus")
		}
		t.Skipf("left out: promtool %s, because promtool is missing (apt-get install prometheus)", strings.Join(args[:2], " "))
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtoolTakesRulesAndConfiguration(t *testing.T) {
	dir := filepath.Join(deploy, "prometheus")
	promtool(t, dir, "check", "rules", "alerts.yml")
	promtool(t, dir, "check", "config", "--syntax-only", "prometheus.yml")
	promtool(t, dir, "test", "rules", "alerts_test.yml")
}

// words of PromQL that look like names of metrics, and functions that are used.
var name = regexp.MustCompile(`\b([a-z][a-z0-9_]*_[a-z0-9_]+|up)\b(\{[^}]*\})?`)

var label = regexp.MustCompile(`([a-z_]+)\s*(?:=|!=|=~|!~)`)

// notMetrics are functions and labels with an underscore.
var notMetrics = []string{"histogram_quantile", "label_values"}

// libraries' metrics that every process exports.
var library = []string{"process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes", "up"}

// outside are labels that a scrape adds.
var outside = []string{"node", "job", "instance", "process", "replica"}

// check wants every name of an expression to be of a metric that is exported, and every label that selects one to be its own.
func check(t *testing.T, where, expr string, all map[string]*metric) {
	t.Helper()
	found := name.FindAllStringSubmatch(expr, -1)
	for _, m := range found {
		if slices.Contains(notMetrics, m[1]) {
			continue
		}
		known := all[m[1]]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(m[1], suffix); ok && all[base] != nil && all[base].typ == "histogram" {
				known = all[base]
			}
		}
		if known == nil && !slices.Contains(library, m[1]) {
			t.Errorf("%s: nobody exports %s", where, m[1])
			continue
		}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(outside, l[1]) && (known == nil || !slices.Contains(known.labels, l[1])) {
				t.Errorf("%s: %s has no label %s", where, m[1], l[1])
			}
		}
	}
	if len(found) == 0 {
		t.Errorf("%s: no metric in %q", where, expr)
	}
}

type rules struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

// TestAlertsAreOfWhatIsExported, say what to do, and each has a case in which it fires and one in which it does not.
func TestAlertsAreOfWhatIsExported(t *testing.T) {
	var r rules
	data, err := os.ReadFile(filepath.Join(deploy, "prometheus", "alerts.yml"))
	if err == nil {
		err = yaml.Unmarshal(data, &r)
	}
	if err != nil || len(r.Groups) == 0 {
		t.Fatal(err)
	}
	cases, err := os.ReadFile(filepath.Join(deploy, "prometheus", "alerts_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	all := metrics(t)
	for _, a := range r.Groups[0].Rules {
		check(t, a.Alert, a.Expr, all)
		for _, key := range []string{"summary", "description", "action"} {
			if a.Annotations[key] == "" {
				t.Errorf("%s has no %s", a.Alert, key)
			}
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels["severity"]) {
			t.Errorf("%s is %q", a.Alert, a.Labels["severity"])
		}
		if n := strings.Count(string(cases), fmt.Sprintf("alertname=%q", a.Alert)); n != 2 {
			t.Errorf("%s has %d cases", a.Alert, n)
		}
	}
}

type dashboard struct {
	Panels []struct {
		Title   string `json:"title"`
		GridPos struct{ H, W, X, Y int }
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

// TestTheDashboardIsOfWhatIsExported; promtool parses its expressions as rules that record something.
func TestTheDashboardIsOfWhatIsExported(t *testing.T) {
	var d dashboard
	data, err := os.ReadFile(filepath.Join(deploy, "grafana", "shallot.json"))
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	if err != nil || len(d.Panels) < 10 {
		t.Fatal(len(d.Panels), err)
	}
	all := metrics(t)
	type record struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var records []record
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("the panel %q shows nothing", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" && other != p.Title {
					t.Fatalf("%q lies over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$node", "n").Replace(target.Expr)
			check(t, p.Title, expr, all)
			records = append(records, record{Record: fmt.Sprintf("panel:%d", len(records)), Expr: expr})
		}
	}
	out, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": records}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "panels.yml"), out, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, dir, "check", "rules", "panels.yml")
}

// TestAWrongNameIsFound: what the tests above rest on.
func TestAWrongNameIsFound(t *testing.T) {
	all := map[string]*metric{"shallot_a_total": {typ: "counter", labels: []string{"x"}}, "shallot_h_seconds": {typ: "histogram"}}
	for expr, wrong := range map[string]bool{
		`rate(shallot_a_total{x="1",node=~"n"}[5m])`: false, `shallot_b_total`: true, `shallot_a_total{y="1"}`: true, `shallot_h_seconds_bucket`: false, `shallot_a_total_bucket`: true, "1": true,
	} {
		inner := &testing.T{}
		check(inner, "here", expr, all)
		if inner.Failed() != wrong {
			t.Errorf("%s is found wrong: %v", expr, inner.Failed())
		}
	}
}
