package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/fence"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// sight is what is seen of a process and the network at one moment.
type sight struct {
	namespace  string   // the network namespace
	interfaces []string // beside the loopback
	sockets    []string // of the process, of the internet's families or packet sockets, that are not on the loopback address: "tcp 192.0.2.7:443"
	sent       uint64   // packets and datagrams that left the namespace since it was made, those to itself included
	dialled    uint64   // connections that were begun in it
}

// canaries are addresses that an anonymous node must never look at. 192.0.2.0/24 is TEST-NET-1 (RFC 5737), .example is reserved (RFC 2606).
var canaries = []string{"/ip4/192.0.2.77/tcp/4001", "/ip4/192.0.2.77/udp/4001/quic-v1", "/ip6/2001:db8::77/tcp/4001", "/dns4/canary.example/tcp/4001", "/dnsaddr/canary.example"}

// canaryPeer is a peer that there is not.
const canaryPeer = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

// Leak watches the running node for a time and says what of it could be seen outside, or was. It needs no rights that the node's own user has not. Call Examine first.
func (d *Doctor) Leak(ctx context.Context, watch time.Duration) Report {
	d.report.Findings = []Finding{}
	switch {
	case !canSee:
		d.wrong("leak", "", "this system does not show what processes do on the network: the check is Linux's")
		return d.report
	case d.mode != supervisor.Anonymous:
		d.wrong("leak", "start it with --anonymous, in a home of its own", "the node is not anonymous: it says openly where it is")
		return d.report
	case d.node == nil:
		d.wrong("leak", "start it", "the node does not answer, so there is nothing to watch")
		return d.report
	}
	own, _ := namespaceOf("self")
	if f, err := fence.Observe(); err == nil {
		d.within = f.Enclosed
	}
	before := d.sights()
	d.canaries(ctx)
	select {
	case <-ctx.Done():
	case <-time.After(watch):
	}
	after := d.sights()
	for _, name := range d.expected() {
		d.leakOf(name, own, before[name], after[name], watch)
	}
	return d.report
}

// sights looks at every process of the node, and at what each has started.
func (d *Doctor) sights() map[string]map[int]sight {
	out := make(map[string]map[int]sight)
	for _, p := range d.state.Processes {
		if p.PID == 0 {
			continue
		}
		out[p.Name] = make(map[int]sight)
		for _, pid := range family(p.PID) {
			if s, err := see(pid); err == nil { // a child may have ended
				out[p.Name][pid] = s
			}
		}
	}
	return out
}

// outside are the processes that have to do with it, and what each may.
var outside = map[string]string{
	supervisor.Tor:   "it is the way out",
	supervisor.Onion: "it may open Unix sockets only",
	"gateway":        "it listens on the loopback address for this machine's programs",
}

func (d *Doctor) leakOf(name, own string, before, after map[int]sight, watch time.Duration) {
	check := "leak of " + name
	if len(after) == 0 {
		d.warn(check, "read "+supervisor.LogFile(d.Home, name), "it does not run, so nothing was seen of it")
		return
	}
	if why, ok := outside[name]; ok {
		var open []string
		for _, s := range after {
			open = append(open, s.sockets...)
		}
		switch {
		case name != supervisor.Tor && len(open) > 0:
			d.wrong(check, "stop the node and tell its makers", "%s, and has open: %s", why, strings.Join(open, ", "))
		case name == supervisor.Tor:
			d.ok(check, "%s: %d connections to the Tor network", why, len(open))
		default:
			d.ok(check, "%s: no socket to elsewhere", why)
		}
		return
	}
	var sent, dialled uint64
	var seen []string
	for pid, s := range after {
		switch {
		case s.namespace == own && !d.within:
			seen = append(seen, "it is in the network namespace of this machine")
			seen = append(seen, s.sockets...)
			continue
		case len(s.interfaces) > 0:
			seen = append(seen, "it has the interface "+strings.Join(s.interfaces, ", "))
		}
		seen = append(seen, s.sockets...)
		if s.namespace == own {
			continue // it counts what the gateway and its callers say to each other, too, and none of it leaves
		}
		b := before[pid]
		sent += s.sent - b.sent
		dialled += s.dialled - b.dialled
	}
	slices.Sort(seen)
	seen = slices.Compact(seen)
	switch {
	case d.state.Fence == "none" && len(seen) > 0:
		d.warn(check, "start the node without --unfenced", "%s", strings.Join(seen, "; "))
	case len(seen) > 0 || sent > 0 || dialled > 0:
		d.wrong(check, "stop the node and tell its makers", "%d packets sent and %d connections begun in %s; %s", sent, dialled, watch, strings.Join(seen, "; "))
	case d.within:
		d.ok(check, "%d processes: no interface, no socket of the internet's families, in the fence that this program is in", len(after))
	default:
		d.ok(check, "%d processes: no interface, no socket of the internet's families, nothing sent in %s", len(after), watch)
	}
}

// canaries gives the node addresses that it must refuse, as a person might type them.
func (d *Doctor) canaries(ctx context.Context) {
	cc, err := d.dial("node")
	if err != nil {
		return
	}
	defer cc.Close()
	client := nodev1.NewNodeServiceClient(cc)
	for _, a := range canaries {
		call, cancel := context.WithTimeout(ctx, checkTimeout)
		_, err := client.ConnectPeer(call, &nodev1.ConnectPeerRequest{Address: a + "/p2p/" + canaryPeer})
		cancel()
		if f := fault.From(err); err == nil || f.Reason != "ADDRESS_NOT_ONION" {
			d.wrong("canary "+a, "stop the node and tell its makers", "the node was told to connect there and did not refuse: %s", outcome(err))
			return
		}
	}
	d.ok("canaries", "%d addresses that are no onions were refused", len(canaries))
}

func outcome(err error) string {
	if err == nil {
		return "it connected"
	}
	return fmt.Sprint(fault.From(err).Message)
}
