package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

func (f *fakeNode) GetSettings(_ context.Context, r *nodev1.GetSettingsRequest) (*nodev1.GetSettingsResponse, error) {
	at := "p-alias"
	if r.GetShowAddresses() {
		at = "an address"
	}
	return &nodev1.GetSettingsResponse{Version: "v1", Processes: []*telemetryv1.ProcessSettings{
		{Name: "node", Replica: "ab", Settings: []*telemetryv1.Setting{{Name: "bootstrap", Value: at, Origin: "file", Place: "/home/config.yaml"}}}, {Name: "task", Error: "it does not answer"},
	}}, nil
}

// The gateway's own settings are beside those of the processes that node calls.
func TestSettingsOverREST(t *testing.T) {
	g := start(t)
	for query, at := range map[string]string{"": "p-alias", "?show_addresses=true": "an address"} {
		status, body, h := g.do(t, http.MethodGet, "/v1/settings"+query, "")
		var got struct {
			Version   string
			Processes []struct {
				Name, Error, Replica string
				Settings             []struct {
					Name, Value, Origin, Place string
					Secret                     *bool
				}
			}
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || h.Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %s", status, body)
		}
		p := got.Processes
		if got.Version != "v1" || len(p) != 3 || p[0].Settings[0].Value != at || p[0].Settings[0].Place != "/home/config.yaml" || p[0].Settings[0].Secret == nil || p[1].Error == "" ||
			p[2].Name != "gateway" || p[2].Settings[0].Value != "1MiB" {
			t.Errorf("got %s", body)
		}
	}
}
