// Package doctor finds out what is wrong with a node and what would mend it.
package doctor

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/findings"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// How bad a finding is. A warning is worth knowing and makes nothing fail.
const (
	OK      = findings.OK
	Warning = findings.Warning
	Wrong   = findings.Wrong
)

// Finding is the outcome of one check.
type Finding struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	// What was found, and what to do where it is not right.
	Detail string `json:"detail"`
	Mend   string `json:"mend"`
}

// Report is what was found out about one node.
type Report struct {
	Node     string    `json:"node"`
	Home     string    `json:"home"`
	Findings []Finding `json:"findings"`
}

// Wrong tells whether anything has to be mended.
func (r Report) Wrong() bool {
	for _, f := range r.Findings {
		if f.Status == Wrong {
			return true
		}
	}
	return false
}

// checkTimeout bounds each question to a process.
const checkTimeout = 2 * time.Second

// Doctor looks at one node. It changes nothing.
type Doctor struct {
	Home   home.Home
	Finder supervisor.Finder
	Now    func() time.Time

	report Report
	state  supervisor.State
	role   string
	mode   string
	within bool         // this program is behind a fence itself, such as a container's, and so is all that it starts
	node   *nodev1.Node // nil when its service does not answer, which is a finding of its own
}

// Examine runs every check.
func (d *Doctor) Examine(ctx context.Context) Report {
	d.report = Report{Home: d.Home.Dir, Findings: []Finding{}}
	d.state, _ = supervisor.ReadState(d.Home) // a node may run without a supervisor
	if d.role = d.state.Role; d.role == "" {
		d.role = supervisor.RecordedRole(d.Home)
	}
	if d.mode = supervisor.RecordedMode(d.Home); d.mode == "" {
		d.mode = supervisor.Open
	}
	d.report.Node = d.state.Name
	d.binaries(ctx)
	d.permissions()
	d.sockets()
	d.disk()
	d.clock()
	d.locks()
	d.anonymity(ctx)
	if d.running() {
		d.node = d.askNode(ctx)
		d.processes(ctx)
		d.tor()
		d.gateway(ctx)
		d.network()
	}
	return d.report
}

func (d *Doctor) add(f findings.Finding) {
	d.report.Findings = append(d.report.Findings, Finding{f.Check, f.Status, f.Detail, f.Mend})
}

func (d *Doctor) ok(check, format string, args ...any) {
	d.report.Findings = append(d.report.Findings, Finding{Check: check, Status: OK, Detail: fmt.Sprintf(format, args...)})
}

func (d *Doctor) warn(check, mend, format string, args ...any) {
	d.report.Findings = append(d.report.Findings, Finding{check, Warning, fmt.Sprintf(format, args...), mend})
}

func (d *Doctor) wrong(check, mend, format string, args ...any) {
	d.report.Findings = append(d.report.Findings, Finding{check, Wrong, fmt.Sprintf(format, args...), mend})
}

func (d *Doctor) running() bool {
	if supervisor.Running(d.Home) {
		d.ok("node", "a %s, running in %s mode", d.role, d.mode)
		return true
	}
	d.wrong("node", "start it: "+nodeclient.StartCommand(d.Home), "it is not running")
	return false
}

// expected are the processes that the node should have; where its role is not known, those that any node has.
func (d *Doctor) expected() []string {
	if d.role == "" {
		return supervisor.Processes(supervisor.Consumer, d.mode)
	}
	return supervisor.Processes(d.role, d.mode)
}

// processes asks each for its health, over its own socket.
func (d *Doctor) processes(ctx context.Context) {
	said := d.complaints()
	for _, name := range d.expected() {
		if name == "gateway" {
			continue // it has a check of its own
		}
		check := "process " + name
		log := "read " + supervisor.LogFile(d.Home, name)
		err := d.health(ctx, name)
		switch {
		case err == nil && said[name] != "":
			d.wrong(check, log, "it says that it is healthy; the node service says: %s", said[name])
		case err == nil:
			d.ok(check, "healthy%s", d.pid(name))
		default:
			if last := d.lastError(name); last != "" {
				err = fmt.Errorf("%w; it ended before with: %s", err, last)
			}
			d.wrong(check, log, "%v", err)
		}
	}
}

func (d *Doctor) pid(name string) string {
	for _, p := range d.state.Processes {
		if p.Name == name && p.PID > 0 {
			if p.Restarts == 0 {
				return fmt.Sprintf(", pid %d", p.PID)
			}
			return fmt.Sprintf(", pid %d, started again %d times, at last after: %s", p.PID, p.Restarts, p.LastError)
		}
	}
	return ""
}

func (d *Doctor) lastError(name string) string {
	for _, p := range d.state.Processes {
		if p.Name == name {
			return p.LastError
		}
	}
	return ""
}

func (d *Doctor) dial(process string) (*grpc.ClientConn, error) {
	return rpc.Dial(d.Home.Endpoint(process), rpc.ClientConfig{Timeout: checkTimeout})
}

func (d *Doctor) health(ctx context.Context, process string) error {
	if err := d.answers(process); err != nil {
		return err
	}
	cc, err := d.dial(process)
	if err != nil {
		return err
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	resp, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		if f := fault.From(err); f.Code == codes.DeadlineExceeded || f.Code == codes.Unavailable {
			return fmt.Errorf("it does not answer on %s", d.Home.Socket(process))
		}
		return err
	}
	if s := resp.GetStatus(); s != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("it answers, but is not serving: its store or a service that it needs is not there")
	}
	return nil
}

// answers tells quickly whether anybody listens: a call would wait.
func (d *Doctor) answers(process string) error {
	c, err := net.DialTimeout("unix", d.Home.Socket(process), checkTimeout)
	if err != nil {
		return fmt.Errorf("nobody listens on %s", d.Home.Socket(process))
	}
	_ = c.Close()
	return nil
}

func (d *Doctor) askNode(ctx context.Context) *nodev1.Node {
	if d.answers("node") != nil {
		return nil
	}
	cc, err := d.dial("node")
	if err != nil {
		return nil
	}
	defer cc.Close()
	resp, err := nodev1.NewNodeServiceClient(cc).GetNode(ctx, &nodev1.GetNodeRequest{})
	if err != nil {
		return nil
	}
	return resp.GetNode()
}

// complaints are what the node service says of others, by process.
func (d *Doctor) complaints() map[string]string {
	said := map[string]string{}
	for _, p := range d.node.GetProcesses() {
		if p.GetState() == "serving" {
			continue
		}
		if said[p.GetName()] = p.GetState(); p.GetDetail() != "" {
			said[p.GetName()] += ", " + p.GetDetail()
		}
	}
	return said
}

// network looks at the connection to others.
func (d *Doctor) network() {
	n := d.node
	if n == nil {
		return
	}
	r := findings.Reach{Online: n.GetOnline(), Provider: n.GetRole() == supervisor.Provider, Known: n.GetProvidersKnown(), Peers: n.GetConnections()}
	if n.GetTor() != nil {
		r.Tor, r.TorLog = supervisor.TorState(n.GetTor()), supervisor.LogFile(d.Home, supervisor.Tor)
	}
	d.add(findings.Network(r))
}
