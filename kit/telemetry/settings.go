package telemetry

import (
	"context"
	"os"
	"strings"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/version"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

// WithSettings has the process tell what it was configured with.
func WithSettings(l *config.Loaded) Option {
	return func(s *service) { s.settings = SettingsOf(l) }
}

// SettingsOf is what a process was configured with, as it tells others. Of a secret it has that there is one.
func SettingsOf(l *config.Loaded) *telemetryv1.ProcessSettings {
	out := &telemetryv1.ProcessSettings{Name: l.Process, Pid: int64(os.Getpid()), Version: version.String(), Replica: Replica()}
	for _, v := range l.Values {
		x := &telemetryv1.Setting{Name: v.Key, Value: v.Value, Help: v.Help}
		x.Origin, x.Place, _ = strings.Cut(v.Source, " ")
		if v.Secret {
			x.Value, x.Secret = "", v.Value != ""
		}
		out.Settings = append(out.Settings, x)
	}
	return out
}

// GetSettings is of the contract.
func (s *service) GetSettings(context.Context, *telemetryv1.GetSettingsRequest) (*telemetryv1.GetSettingsResponse, error) {
	if s.settings == nil {
		return nil, fault.Unavailable("SETTINGS_UNKNOWN", "%s does not say what it was configured with", s.process)
	}
	return &telemetryv1.GetSettingsResponse{Settings: s.settings}, nil
}
