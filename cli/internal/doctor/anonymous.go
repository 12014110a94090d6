package doctor

import (
	"context"
	"net"
	"slices"
	"strings"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/fence"
	"github.com/shallot-net/shallot/kit/findings"
)

// anonymity looks at what an anonymous node takes of this machine: a tor and a fence.
func (d *Doctor) anonymity(ctx context.Context) {
	if d.mode != supervisor.Anonymous {
		return
	}
	if socks := supervisor.RecordedTor(d.Home).Socks; socks != "" {
		d.ok("tor", "one that runs beside the node, at %s", socks)
	} else if p, err := d.Finder.FindTor(); err != nil {
		d.wrong("tor", "install tor (Debian: apt-get install tor), then restart the node", "%v", err)
	} else {
		d.ok("tor", "%s, version %s", p.Path, p.Version)
	}
	way, err := fence.Available(ctx)
	switch {
	case err != nil && d.state.Fence != "none":
		d.wrong("fence", "let this user make namespaces, or start the node where there is no network, or with --unfenced", "%s", fault.From(err).Message)
	case d.state.Fence == "none":
		d.add(findings.Fence())
	default:
		d.ok("fence", "processes are enclosed by %s", way)
	}
}

// tor looks at the sockets of the tor that the running node uses.
func (d *Doctor) tor() {
	if d.mode != supervisor.Anonymous {
		return
	}
	const check = "process tor"
	t := supervisor.RecordedTor(d.Home)
	sockets := []string{t.Control, t.Socks}
	mend := "start it, or look into its log"
	if slices.ContainsFunc(d.state.Processes, func(p supervisor.ProcessState) bool { return p.Name == supervisor.Tor }) {
		sockets = []string{d.Home.Endpoint("tor-control"), d.Home.Endpoint("tor-socks")}
		mend = "read " + supervisor.LogFile(d.Home, supervisor.Tor)
	}
	for _, s := range sockets {
		path := strings.TrimPrefix(s, "unix:")
		c, err := net.DialTimeout("unix", path, checkTimeout)
		if err != nil {
			said := ""
			if last := d.lastError(supervisor.Tor); last != "" {
				said = "; it ended before with: " + last
			}
			d.wrong(check, mend, "nobody listens on %s%s", path, said)
			return
		}
		_ = c.Close()
	}
	d.ok(check, "it listens%s", d.pid(supervisor.Tor))
}
