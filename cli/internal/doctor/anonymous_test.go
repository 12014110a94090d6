package doctor

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fence"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// anonymous makes the patient one with a tor of its own, as its supervisor would have left it.
func (p *patient) anonymous(fence string) {
	p.t.Helper()
	p.write(filepath.Join(p.home.State("supervisor"), "node.json"), `{"role":"consumer","mode":"anonymous","gateway_port":1}`, 0o600)
	p.json("run/node.json", supervisor.State{Name: "consumer-1", Role: supervisor.Consumer, Mode: supervisor.Anonymous, Fence: fence,
		Processes: []supervisor.ProcessState{{Name: supervisor.Tor, PID: os.Getpid(), LastError: "it was ill"}, {Name: "broker", PID: os.Getpid()}}})
	p.write(filepath.Join(p.bin, "tor"), "#!/bin/sh\necho Tor version 0.4.9.11.\n", 0o700)
	p.serve(supervisor.Onion, true)
	for _, s := range []string{"tor-control", "tor-socks"} {
		l, err := net.Listen("unix", p.home.Socket(s))
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { _ = l.Close() })
	}
}

func TestHealthyAnonymousNode(t *testing.T) {
	t.Parallel()
	if _, err := fence.Available(t.Context()); err != nil {
		t.Skip("no fence here")
	}
	p := newPatient(t)
	p.anonymous("enclosed")
	found := map[string]string{}
	for _, f := range p.examine().Findings {
		found[f.Check] = f.Status + " " + f.Detail
	}
	for check, want := range map[string]string{"tor": "ok " + filepath.Join(p.bin, "tor") + ", version 0.4.9.11", "fence": "ok processes are enclosed", "process onion": "ok healthy", "process tor": "ok it listens, pid", "node": "ok a consumer, running in anonymous mode"} {
		if !strings.HasPrefix(found[check], want) {
			t.Errorf("%s is %q, want %q", check, found[check], want)
		}
	}
}

func TestComplaintsOfAnonymousNodes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil               func(p *patient)
		check, detail, mend string
	}{
		"no tor": {func(p *patient) { _ = os.Remove(filepath.Join(p.bin, "tor")) }, "tor", "tor is missing", "apt-get install tor"},
		"an old tor": {func(p *patient) {
			p.write(filepath.Join(p.bin, "tor"), "#!/bin/sh\necho Tor version 0.3.5.1.\n", 0o700)
		}, "tor", "0.3.5.1", "install tor"},
		"a dead tor":     {func(p *patient) { _ = os.Remove(p.home.Socket("tor-socks")) }, "process tor", "ended before with: it was ill", "tor.log"},
		"a silent onion": {func(p *patient) { _ = os.Remove(p.home.Socket("onion")) }, "process onion", "nobody listens", "onion.log"},
		"no way into Tor": {func(p *patient) {
			p.node.Online, p.node.Tor = false, &nodev1.Tor{State: "starting", Progress: 5, Detail: "connecting to a relay"}
		}, "network", "tor is starting, 5 % (connecting to a relay)", "--bridge"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			p.anonymous("none")
			c.spoil(p)
			r := p.examine()
			r.want(t, c.check, c.detail, c.mend)
			for _, f := range r.Findings {
				if f.Check == "fence" && f.Status != Warning {
					t.Errorf("without a fence: %+v", f)
				}
			}
		})
	}
}
