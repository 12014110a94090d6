package api

import (
	"context"
	"fmt"
	"time"

	"github.com/shallot-net/shallot/kit/findings"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/services/node/internal/app"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// Diagnose says what this node can see to be wrong with itself.
func (s *Service) Diagnose(ctx context.Context, _ *nodev1.DiagnoseRequest) (*nodev1.DiagnoseResponse, error) {
	r, err := s.GetNode(ctx, &nodev1.GetNodeRequest{})
	if err != nil {
		return nil, err
	}
	n := r.GetNode()
	var list []findings.Finding
	for _, p := range n.GetProcesses() {
		check := "process " + p.GetName()
		switch {
		case p.GetState() == app.ProcessServing:
			list = append(list, findings.Good(check, "it is ready"))
		case p.GetDetail() != "":
			list = append(list, findings.Bad(check, "read its log", "it is %s: %s", p.GetState(), p.GetDetail()))
		default:
			list = append(list, findings.Bad(check, "read its log", "it is %s", p.GetState()))
		}
	}
	reach := findings.Reach{Online: n.GetOnline(), Provider: n.GetRole() == domain.RoleProvider, Known: n.GetProvidersKnown(), Peers: n.GetConnections()}
	if t := n.GetTor(); t != nil {
		reach.Tor = t.GetState()
		if t.GetDetail() != "" {
			reach.Tor = fmt.Sprintf("%s (%s)", t.GetState(), t.GetDetail())
		}
		if n.GetFence() == "none" {
			list = append(list, findings.Fence())
		}
	}
	list = append(list, findings.Network(reach))
	if s.cfg.Home != "" {
		list = append(list, findings.Disk(s.cfg.Home), findings.Clock(s.cfg.Home, time.Now()))
	}
	out := &nodev1.DiagnoseResponse{}
	for _, f := range list {
		m := &nodev1.Finding{Check: f.Check, Verdict: f.Status, Detail: f.Detail, Mend: f.Mend}
		if f.Status == findings.Wrong {
			m.Verdict = "problem"
		}
		out.Findings = append(out.Findings, m)
	}
	return out, nil
}
