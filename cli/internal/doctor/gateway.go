package doctor

import (
	"context"
	"os"

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
	if err := g.Healthy(ctx); err != nil {
		d.wrong("process gateway", log, "%v", err)
	} else {
		d.ok("process gateway", "healthy, %s%s", g.URL, d.pid("gateway"))
	}
	d.token(g.TokenFile, log)
}

func (d *Doctor) token(path, log string) {
	if path == "" {
		d.wrong("token", log, "the gateway has not said where its token is")
		return
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		d.wrong("token", "wait a second: the gateway makes a new one; where it does not, "+log, "cannot look at the token file: %v", err)
	case info.Mode().Perm()&0o077 != 0:
		d.wrong("token", "chmod 600 "+path+"; or remove it, if others may have read it: the gateway makes a new one within a second", "%s can be read by others (mode %04o)", path, info.Mode().Perm())
	case info.Size() == 0:
		d.wrong("token", "remove it: the gateway makes a new one within a second", "%s is empty", path)
	default:
		d.ok("token", "%s is this user's alone", path)
	}
}
