package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/broker/internal/adapter/onionserver"
	"github.com/shallot-net/shallot/broker/internal/adapter/torcontrol/torcontroltest"
	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	onionv1 "github.com/shallot-net/shallot/proto/shallot/onion/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// start runs the process's run and returns a connection to it and what ends it.
func start(t *testing.T, dir string, args ...string) (*grpc.ClientConn, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, append([]string{"--home", dir, "--log.level", "error"}, args...)) }()
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := rpc.Dial(h.Endpoint(process), rpc.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	stop := func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
		_ = cc.Close()
	}
	r, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		stop()
		t.Fatalf("not serving: %v %v", r, err)
	}
	return cc, stop
}

// watch waits until the state is what is wanted.
func watch(t *testing.T, cc *grpc.ClientConn, ok func(*onionv1.WatchResponse) bool) *onionv1.WatchResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := onionv1.NewOnionServiceClient(cc).Watch(ctx, &onionv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var last *onionv1.WatchResponse
	for {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("it ended with %v; the last state was %v", err, last)
		}
		if last = r; ok(r) {
			return r
		}
	}
}

func TestProcess(t *testing.T) {
	dir, tor := t.TempDir(), torcontroltest.New(t)
	run0, err := os.MkdirTemp("", "onion") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run0)
	control := filepath.Join(run0, "control")
	cc, stop := start(t, dir, "--control", "unix:"+control)
	r := watch(t, cc, func(r *onionv1.WatchResponse) bool {
		return strings.Contains(r.GetTor().GetDetail(), "there is no control socket")
	})
	if r.GetTor().GetState() != "unreachable" || r.GetTor().GetSince() == nil {
		t.Errorf("%v", r)
	}
	client := onionv1.NewOnionServiceClient(cc)
	publish := &onionv1.PublishRequest{KeySeed: bytes.Repeat([]byte{3}, 32), Socket: filepath.Join(run0, "a.sock"), Port: 4001, ProofOfWork: true}
	if _, err := client.Publish(t.Context(), publish); fault.From(err) == nil || fault.From(err).Reason != "TOR_UNREACHABLE" || fault.From(err).Code.String() != "Unavailable" {
		t.Errorf("without a tor: %v", err)
	}
	tor.Change(func(b *torcontroltest.Behaviour) { b.UploadsAfter = 10 * time.Millisecond })
	tor.Listen(control)
	r = watch(t, cc, func(r *onionv1.WatchResponse) bool {
		return r.GetTor().GetState() == "online" && len(r.GetServices()) == 1 && r.GetServices()[0].GetState() == "published" && r.GetServices()[0].GetUploads() == 3
	})
	id := r.GetServices()[0].GetServiceId()
	if r.GetTor().GetVersion() != "0.4.9.11" || r.GetTor().GetProgress() != 100 || r.GetServices()[0].GetPublishedAt() == nil {
		t.Errorf("%v", r)
	}
	if p, err := client.Publish(t.Context(), publish); err != nil || p.GetServiceId() != id || len(tor.Heard("ADD_ONION")) != 1 {
		t.Errorf("what was asked for before: %v %v", p, err)
	}
	if _, err := client.Authorize(t.Context(), &onionv1.AuthorizeRequest{ServiceId: id, ClientKey: bytes.Repeat([]byte{9}, 32)}); err != nil {
		t.Error(err)
	}
	if _, err := client.Publish(t.Context(), &onionv1.PublishRequest{}); fault.From(err) == nil || fault.From(err).Reason != "KEY_INVALID" {
		t.Errorf("an empty request: %v", err)
	}
	gathered, err := telemetryv1.NewTelemetryServiceClient(cc).Gather(t.Context(), &telemetryv1.GatherRequest{})
	if err != nil || len(gathered.GetProcesses()) != 1 {
		t.Fatalf("got %v %v", gathered, err)
	}
	text := string(gathered.GetProcesses()[0].GetText())
	for _, line := range []string{onionserver.Online + " 1", onionserver.Uploads + " 3", onionserver.Services + `{state="published"} 1`, onionserver.Added + `{why="new"} 1`} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s in the metrics", line)
		}
	}
	if strings.Contains(text, id) {
		t.Error("the metrics have a service id")
	}
	err = run(t.Context(), []string{"--home", dir, "--control", "unix:" + control})
	if f := fault.From(err); f == nil || f.Reason != "HOME_IN_USE" {
		t.Errorf("a second process on the same home: %v", err)
	}
	stop()
	// Another process on the same home finds the service at tor.
	cc, stop = start(t, dir, "--control", "unix:"+control)
	defer stop()
	client = onionv1.NewOnionServiceClient(cc)
	if _, err := client.Publish(t.Context(), publish); err != nil || len(tor.Heard("ADD_ONION")) != 1 {
		t.Errorf("after a restart: %v, %d adds", err, len(tor.Heard("ADD_ONION")))
	}
	watch(t, cc, func(r *onionv1.WatchResponse) bool { return r.GetServices()[0].GetState() == "published" })
	if _, err := client.Withdraw(t.Context(), &onionv1.WithdrawRequest{ServiceId: id}); err != nil || len(tor.Services()) != 0 {
		t.Errorf("withdrawn: %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	for name, args := range map[string][]string{
		"no control":         {},
		"TCP":                {"--control", "127.0.0.1:9051"},
		"a relative path":    {"--control", "unix:tor.sock"},
		"a long path":        {"--control", "unix:/" + strings.Repeat("a", 107)},
		"a relative cookie":  {"--control", "unix:/a", "--cookie-file", "c"},
		"cookie or password": {"--control", "unix:/a", "--cookie-file", "/c", "--password-file", "/p"},
		"no services":        {"--control", "unix:/a", "--max-services", "0"},
		"an unknown key":     {"--control", "unix:/a", "--socks", "x"},
	} {
		if f := fault.From(run(t.Context(), append(args, "--home", t.TempDir()))); f == nil || f.Code.String() != "InvalidArgument" {
			t.Errorf("%s: got %v", name, f)
		}
	}
	cfg := defaults()
	if _, err := config.Load(process, &cfg, []string{"--home", t.TempDir(), "--control", "unix:/run/tor/control"}); err != nil || cfg.socket() != "/run/tor/control" {
		t.Errorf("the defaults: %v", err)
	}
}
