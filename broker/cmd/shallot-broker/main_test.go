package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
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
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		r, err := healthpb.NewHealthClient(cc).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err == nil && r.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return cc, stop
		}
		if time.Now().After(deadline) {
			t.Fatalf("not serving: %v %v", r, err)
		}
	}
}

func self(t *testing.T, cc *grpc.ClientConn) *brokerv1.SelfResponse {
	t.Helper()
	r, err := brokerv1.NewNetworkServiceClient(cc).Self(t.Context(), &brokerv1.SelfRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestProcess(t *testing.T) {
	dir := t.TempDir()
	cc, stop := start(t, dir)
	first := self(t, cc)
	gathered, err := telemetryv1.NewTelemetryServiceClient(cc).Gather(t.Context(), &telemetryv1.GatherRequest{})
	if err != nil || len(gathered.GetProcesses()) != 1 {
		t.Fatalf("got %v %v", gathered, err)
	}
	text := gathered.GetProcesses()[0].GetText()
	if !bytes.Contains(text, []byte("shallot_broker_send_seconds")) || bytes.Contains(text, []byte(first.GetPeerId())) {
		t.Errorf("the metrics are\n%s", text)
	}
	err = run(t.Context(), []string{"--home", dir})
	if f := fault.From(err); f == nil || f.Reason != "HOME_IN_USE" {
		t.Errorf("a second process on the same home: %v", err)
	}
	stop()
	cc, stop = start(t, dir)
	if again := self(t, cc); again.GetPeerId() != first.GetPeerId() {
		t.Errorf("the identity changed from %s to %s", first.GetPeerId(), again.GetPeerId())
	}
	err = run(t.Context(), []string{"--home", t.TempDir(), "--listen_addrs", self(t, cc).GetAddresses()[0]})
	if f := fault.From(err); f == nil || f.Reason != "PORT_IN_USE" || !strings.Contains(err.Error(), self(t, cc).GetAddresses()[0]) {
		t.Errorf("a port in use: %v", err)
	}
	stop()
	if err := os.WriteFile(filepath.Join(dir, "state", process, "mode"), []byte("anonymous\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = run(t.Context(), []string{"--home", dir})
	if f := fault.From(err); f == nil || f.Reason != "MODE_MISMATCH" || !strings.Contains(err.Error(), dir) {
		t.Errorf("a home of another mode: %v", err)
	}
}

// Behind something that forwards a port a node tells others of that, and of no loopback.
func TestAnnouncedAddresses(t *testing.T) {
	const outside = "/ip4/192.0.2.7/tcp/4001"
	cc, stop := start(t, t.TempDir(), "--announce_addrs", outside)
	defer stop()
	if got := self(t, cc).GetAddresses(); len(got) != 1 || !strings.HasPrefix(got[0], outside) { // it listens on loopback alone
		t.Errorf("it tells %v", got)
	}
}

func TestConfiguration(t *testing.T) {
	for name, args := range map[string][]string{
		"no home":             {},
		"unknown key":         {"--listen_addr", "x"},
		"unknown mode":        {"--mode", "anonymous"},
		"no limit":            {"--limits.peer_events", "0"},
		"no rate":             {"--limits.peer_rate", "0"},
		"no gossip":           {"--limits.gossip_rate", "1"},
		"no patience":         {"--limits.patience", "10ms"},
		"small limit":         {"--limits.peer_bytes", "1KiB"},
		"small quota":         {"--content.quota", "1MiB"},
		"kept never":          {"--content.keep", "0s"},
		"no multiaddr":        {"--listen_addrs", "0.0.0.0:4001"},
		"no TCP":              {"--listen_addrs", "/ip4/0.0.0.0/udp/4001/quic-v1"},
		"told no port":        {"--announce_addrs", "/ip4/192.0.2.7/tcp/0"},
		"told a peer":         {"--announce_addrs", "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWBdR5WiMwBdgMSmdrWEn4M6gffZPKMBako5FqZwvwB2w9"},
		"told an IP over Tor": {"--mode", "anonymous", "--onion.socks", "unix:/x", "--announce_addrs", "/ip4/192.0.2.7/tcp/4001"},
	} {
		if name != "no home" {
			args = append(args, "--home", t.TempDir())
		}
		if f := fault.From(run(t.Context(), args)); f == nil || f.Code.String() != "InvalidArgument" {
			t.Errorf("%s: got %v", name, f)
		}
	}
	anonymous := []string{"--home", t.TempDir(), "--mode", "anonymous", "--onion.socks", "unix:/run/tor/socks", "--trace.endpoint"}
	for endpoint, ok := range map[string]bool{"unix:/run/otel.sock": true, "127.0.0.1:4317": false} {
		cfg := defaults()
		if _, err := config.Load(process, &cfg, append(anonymous, endpoint)); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "trace.endpoint") {
			t.Errorf("an anonymous broker whose spans go to %s: %v", endpoint, err)
		}
	}
	cfg := defaults()
	if _, err := config.Load(process, &cfg, []string{"--home", t.TempDir()}); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	var out bytes.Buffer
	if _, err := config.Load(process, &cfg, []string{"--help"}, config.WithStdout(&out)); !errors.Is(err, config.ErrHelp) || !strings.Contains(out.String(), "subscriber") {
		t.Errorf("help: %v\n%s", err, out.String())
	}
}
