// Package watch holds what operators watch nodes with against what nodes export: the page of metrics, the rules of alerts, the dashboard.
package watch

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
	"github.com/shallot-net/shallot/kit/rpc"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

const page = "../../docs/metrics.md"

// metric is what processes say of one.
type metric struct {
	typ, help string
	labels    []string
	processes []string
}

// exported asks the processes of a provider and of a consumer, a gateway that has certificates, and an onion process what they export.
var exported = sync.OnceValues(func() (map[string]*metric, error) {
	bin, err := dev.Bin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "shallot-watch")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	n, err := dev.Start(ctx, dev.Config{Bin: bin, Dir: dir, Providers: 1, Consumers: 1})
	if err != nil {
		return nil, err
	}
	all := map[string]*metric{}
	for node, processes := range map[string][]string{"provider-1": {"broker", "discovery", "metric", "task", "node", "gateway"}, "consumer-1": {"broker", "task", "node", "gateway"}} {
		for _, process := range processes {
			if err == nil {
				err = ask(ctx, n.Home(node), process, all)
			}
		}
	}
	if stopped := n.Stop(); err == nil {
		err = stopped
	}
	return all, err
})

// ask adds what one process exports, and looks whether its text says the same.
func ask(ctx context.Context, dir, process string, all map[string]*metric) error {
	h, err := home.Open(dir)
	if err != nil {
		return err
	}
	conn, err := rpc.Dial(h.Endpoint(process), rpc.ClientConfig{Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer conn.Close()
	r, err := telemetryv1.NewTelemetryServiceClient(conn).Gather(ctx, &telemetryv1.GatherRequest{Describe: true})
	if err != nil {
		return fmt.Errorf("%s: %w", process, err)
	}
	own := r.GetProcesses()[0]
	said := map[string]*telemetryv1.MetricDescription{}
	for _, m := range own.GetMetrics() {
		said[m.GetName()] = m
		x := all[m.GetName()]
		if x == nil {
			x = &metric{typ: m.GetType(), help: m.GetHelp(), labels: m.GetLabels()}
			all[m.GetName()] = x
		}
		if x.typ != m.GetType() || x.help != m.GetHelp() || !slices.Equal(x.labels, m.GetLabels()) {
			return fmt.Errorf("%s is a %s with %v at one process and a %s with %v at %s, or is said to be %q and %q", m.GetName(), x.typ, x.labels, m.GetType(), m.GetLabels(), process, x.help, m.GetHelp())
		}
		if !slices.Contains(x.processes, process) {
			x.processes = append(x.processes, process)
		}
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(own.GetText()))
	if err != nil {
		return err
	}
	for name, f := range families {
		if !strings.HasPrefix(name, "shallot_") {
			continue
		}
		m := said[name]
		if m == nil || m.GetType() != strings.ToLower(f.GetType().String()) || m.GetHelp() != f.GetHelp() {
			return fmt.Errorf("%s exports %s %s, and describes it as %v", process, f.GetType(), name, m)
		}
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				if !slices.Contains(m.GetLabels(), l.GetName()) {
					return fmt.Errorf("%s exports %s with the label %s, and describes it as %v", process, name, l.GetName(), m)
				}
			}
		}
	}
	return nil
}

// alone starts one process by itself, and asks it.
func alone(t *testing.T, process string, all map[string]*metric, args ...string) {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shallot-alone") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "shallot-"+process), append([]string{"--home", dir}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	err = ask(ctx, dir, process, all)
	cancel()
	_ = cmd.Wait() // it was told to end
	if err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
}

// metrics is all that there is; tests read it and do not change it.
func metrics(t *testing.T) map[string]*metric {
	t.Helper()
	all, err := exported()
	if err != nil {
		t.Fatal(err)
	}
	all = maps.Clone(all)
	alone(t, "gateway", all, "--tls.dir", mtlstest.NewCA(t).Dir("gateway"), "--trace.endpoint", "unix:/nobody", "--node", "unix:/nobody")
	alone(t, "onion", all, "--control", "unix:/nobody")
	// What the gateway makes of all of them together.
	all["shallot_up"] = &metric{typ: "gauge", help: "1 where the process answered when it was asked for its metrics.", labels: []string{"process"}, processes: []string{"gateway"}}
	return all
}

// everywhere are metrics of every process.
func everywhere(processes []string) string {
	if len(processes) >= 6 {
		return "all"
	}
	slices.Sort(processes)
	return strings.Join(processes, ", ")
}

// TestThePageOfMetrics: docs/metrics.md lists what the processes export. `make metrics-doc` writes it.
func TestThePageOfMetrics(t *testing.T) {
	all := metrics(t)
	var b bytes.Buffer
	b.WriteString(`# Metrics

A node's gateway answers ` + "`GET /metrics`" + ` (with its token) with what all processes of the node measure, each sample with the labels ` + "`process` and `replica`" + `; a single process
does on loopback where ` + "`telemetry_listen`" + ` names a port. ` + "[deploy/prometheus](../deploy/prometheus)" + ` has rules of alerts and an example of a configuration,
[deploy/grafana](../deploy/grafana) a dashboard. Names, types and labels stay as they are within a major version. No label is a peer, an address, a key, or a word that a
stranger chose. Beside these there are the metrics of the Go runtime and of the process (` + "`go_*`, `process_*`" + `) as Prometheus's client for Go has them; ` + "`shallot-onion`" + `
has its metrics on a port of its own only.

This page is what the processes say of themselves: ` + "`make metrics-doc`" + ` writes it. Where a process has the trace or the TLS metrics, every process with that setting has.

| metric | type | labels | process | what it is |
| --- | --- | --- | --- | --- |
`)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		m := all[name]
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, m.typ, strings.Join(m.labels, ", "), everywhere(m.processes), strings.ReplaceAll(m.help, "|", "\\|"))
	}
	if *update {
		if err := os.WriteFile(page, b.Bytes(), 0o644); err != nil { //nolint:gosec // a page for everybody
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(page); err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("docs/metrics.md is not what the processes export (%v): make metrics-doc", err)
	}
}

// TestNamesAreAsPrometheusHasThem: counters end in _total, units are base units, everything has a help.
func TestNamesAreAsPrometheusHasThem(t *testing.T) {
	types := map[string]dto.MetricType{"counter": dto.MetricType_COUNTER, "gauge": dto.MetricType_GAUGE, "histogram": dto.MetricType_HISTOGRAM}
	for name, m := range metrics(t) {
		typ, ok := types[m.typ]
		if !ok {
			t.Errorf("%s has the type %q", name, m.typ)
		}
		f := &dto.MetricFamily{Name: proto.String(name), Help: proto.String(m.help), Type: typ.Enum()}
		x := &dto.Metric{}
		for _, l := range m.labels {
			x.Label = append(x.Label, &dto.LabelPair{Name: proto.String(l), Value: proto.String("v")})
		}
		switch m.typ {
		case "counter":
			x.Counter = &dto.Counter{Value: proto.Float64(0)}
		case "gauge":
			x.Gauge = &dto.Gauge{Value: proto.Float64(0)}
		case "histogram":
			x.Histogram = &dto.Histogram{SampleCount: proto.Uint64(0), SampleSum: proto.Float64(0)}
		}
		f.Metric = []*dto.Metric{x}
		problems, err := promlint.NewWithMetricFamilies([]*dto.MetricFamily{f}).Lint()
		if err != nil {
			t.Error(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}
