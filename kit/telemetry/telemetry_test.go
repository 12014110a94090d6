package telemetry_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/telemetry"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

func registry() *telemetry.Registry {
	r := telemetry.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "shallot_test_total", Help: "x"})
	c.Add(7)
	r.MustRegister(c)
	return r
}

func TestGather(t *testing.T) {
	cc := grpctest.Start(t, func(s *rpc.Server) {
		telemetry.Register(s, "node", registry(), telemetry.Also(telemetry.GathererFunc(func(context.Context) ([]*telemetryv1.ProcessMetrics, error) {
			return []*telemetryv1.ProcessMetrics{{Process: "task", Error: "unreachable"}}, nil
		})))
	})
	r, err := telemetryv1.NewTelemetryServiceClient(cc).Gather(t.Context(), &telemetryv1.GatherRequest{})
	if err != nil || len(r.Processes) != 2 || r.Processes[1].Process != "task" {
		t.Fatalf("%v, %v", r, err)
	}
	own := r.Processes[0]
	for _, want := range []string{"\nshallot_test_total 7\n", "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(string(own.Text), want) {
			t.Errorf("lacks %q", want)
		}
	}
	if own.Process != "node" || own.Pid != int64(os.Getpid()) {
		t.Errorf("%v %v", own.Process, own.Pid)
	}
}

func TestScrape(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if f := fault.From(telemetry.Serve(ctx, addr, registry())); f == nil || f.Reason != "ENDPOINT_IN_USE" || !strings.Contains(f.Message, addr) {
		t.Errorf("a port in use gives %v", f)
	}
	_ = l.Close()
	if f := fault.From(telemetry.Serve(ctx, "0.0.0.0:0", registry())); f == nil || f.Reason != "ENDPOINT_INSECURE" {
		t.Errorf("got %v", f)
	}
	done := make(chan error, 1)
	go func() { done <- telemetry.Serve(ctx, addr, registry()) }()
	var resp *http.Response
	for end := time.Now().Add(time.Minute); ; {
		if resp, err = http.Get("http://" + addr + "/metrics"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !strings.Contains(string(body), "shallot_test_total 7") {
		t.Errorf("%s", body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMetricsAreDescribedBeforeTheyHaveAValue(t *testing.T) {
	r := telemetry.NewRegistry()
	r.MustRegister(prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shallot_x_total", Help: `a "b"`}, []string{"b", "c"}),
		prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shallot_y_seconds", Help: "y"}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shallot_z", Help: "z"}, func() float64 { return 1 }))
	var got []string
	for _, m := range r.Describe() {
		got = append(got, strings.Join([]string{m.GetName(), m.GetType(), strings.Join(m.GetLabels(), "+"), m.GetHelp()}, "|"))
	}
	want := []string{"shallot_build_info|gauge|version|1, with the version of the program.", `shallot_x_total|counter|b+c|a "b"`, "shallot_y_seconds|histogram||y", "shallot_z|gauge||z"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

type configured struct {
	config.Common
	Slots int    `koanf:"slots" help:"how many"`
	Word  string `koanf:"word" secret:"true"`
	None  string `koanf:"none" secret:"true"`
}

// What a process was configured with is told with where it came from; a secret only with that there is one.
func TestSettings(t *testing.T) {
	dir := t.TempDir()
	l, err := config.Load("task", &configured{Slots: 2}, []string{"--home", dir, "--log.level", "debug"}, config.WithEnviron([]string{"SHALLOT_TASK_WORD=hush"}))
	if err != nil {
		t.Fatal(err)
	}
	client := telemetryv1.NewTelemetryServiceClient(grpctest.Start(t, func(s *rpc.Server) { telemetry.Register(s, "task", telemetry.NewRegistry(), telemetry.WithSettings(l)) }))
	r, err := client.GetSettings(t.Context(), &telemetryv1.GetSettingsRequest{})
	if err != nil || r.GetSettings().GetName() != "task" || r.GetSettings().GetVersion() == "" || r.GetSettings().GetReplica() == "" {
		t.Fatalf("%v, %v", r, err)
	}
	got := map[string]string{}
	for _, s := range r.GetSettings().GetSettings() {
		got[s.GetName()] = fmt.Sprint(s.GetValue(), "|", s.GetOrigin(), "|", s.GetPlace(), "|", s.GetSecret())
	}
	for name, want := range map[string]string{"slots": "2|default||false", "log.level": "debug|flag|--log.level|false", "word": "|environment|SHALLOT_TASK_WORD|true", "none": "|default||false",
		"home": dir + "|flag|--home|false"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	silent := telemetryv1.NewTelemetryServiceClient(grpctest.Start(t, func(s *rpc.Server) { telemetry.Register(s, "task", telemetry.NewRegistry()) }))
	if _, err := silent.GetSettings(t.Context(), &telemetryv1.GetSettingsRequest{}); err == nil || !strings.Contains(err.Error(), "does not say") {
		t.Errorf("one without: %v", err)
	}
}
