package doctor

import (
	"context"
	"net/http"
	"os"
	"strings"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
)

// gateway looks at the REST side: where it says that it is, whether it answers, and whether its token is a secret.
func (d *Doctor) gateway(ctx context.Context) {
	log := "read " + supervisor.LogFile(d.Home, "gateway")
	g, err := supervisor.ReadGateway(d.Home)
	if err != nil {
		d.wrong("process gateway", log, "it has not said where it listens: %v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(g.URL, "/")+"/healthz", nil)
	if err != nil {
		d.wrong("process gateway", log, "its address %q is none: %v", g.URL, err)
		return
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		d.wrong("process gateway", log, "nobody answers on %s: %v", g.URL, err)
	} else {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			d.wrong("process gateway", log, "%s/healthz answers %s", g.URL, resp.Status)
		} else {
			d.ok("process gateway", "healthy, %s%s", g.URL, d.pid("gateway"))
		}
	}
	d.token(g.TokenFile)
}

func (d *Doctor) token(path string) {
	if path == "" {
		d.wrong("token", "restart the gateway", "the gateway has not said where its token is")
		return
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		d.wrong("token", "restart the gateway: it makes a new one", "cannot look at the token file: %v", err)
	case info.Mode().Perm()&0o077 != 0:
		d.wrong("token", "chmod 600 "+path+", and make a new token if others may have read it", "%s can be read by others (mode %04o)", path, info.Mode().Perm())
	case info.Size() == 0:
		d.wrong("token", "remove it and restart the gateway: it makes a new one", "%s is empty", path)
	default:
		d.ok("token", "%s is this user's alone", path)
	}
}
