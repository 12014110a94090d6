package rest

import (
	"context"
	"net/http"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// settings: GET /v1/settings, what every process of the node runs with, this one included, which node does not call. Each replica of node tells of itself.
func (s *server) settings(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	ctx, cancel := context.WithTimeout(r.Context(), gatherTimeout)
	defer cancel()
	in := &nodev1.GetSettingsRequest{ShowAddresses: r.URL.Query().Get("show_addresses") == "true"}
	var out *nodev1.GetSettingsResponse
	err := rpc.Every(ctx, replicaTimeout, func(ctx context.Context) error {
		m, err := s.node.GetSettings(ctx, in)
		if err != nil {
			return err
		}
		if out == nil {
			out = m
			return nil
		}
		for _, p := range m.GetProcesses() {
			if i := slices.IndexFunc(out.GetProcesses(), func(o *telemetryv1.ProcessSettings) bool {
				return o.GetName() == p.GetName() && o.GetReplica() == p.GetReplica()
			}); i < 0 {
				out.Processes = append(out.Processes, p)
			}
		}
		return nil
	})
	if out == nil {
		s.problems.write(w, r, err)
		return
	}
	if s.Settings != nil {
		out.Processes = append(out.Processes, s.Settings)
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(out)
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b)
}
