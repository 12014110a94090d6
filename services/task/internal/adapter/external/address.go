package external

import (
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Address is one executor as it is configured: a task type, and where its server listens.
type Address struct {
	Type     string
	Endpoint string // unix:/path or host:port
}

// UnmarshalText reads "TYPE=unix:/path" or "TYPE=127.0.0.1:7000".
func (a *Address) UnmarshalText(text []byte) error {
	name, endpoint, ok := strings.Cut(string(text), "=")
	if !ok || endpoint == "" {
		return fault.InvalidArgument("CONFIG_INVALID", "not TYPE=ADDRESS, such as ocr=unix:/run/ocr.sock")
	}
	if !domain.ValidType(name) {
		return fault.InvalidArgument("CONFIG_INVALID", "the task type %q is not 1 to %d of a-z, 0-9, '.', '_' and '-', a letter first", name, domain.MaxType)
	}
	a.Type, a.Endpoint = name, endpoint
	return nil
}

// MarshalText is the reverse.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.Type + "=" + a.Endpoint), nil }

// Unix tells whether the endpoint is a Unix socket. An anonymous node has no network to reach any other.
func (a Address) Unix() bool { return strings.HasPrefix(a.Endpoint, "unix:") }
