package command

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"time"

	"github.com/cli/browser"
	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/gatewayclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fault"
)

func (a *app) dashboard() *cobra.Command {
	var g gatewayFlags
	var noOpen bool
	cmd := &cobra.Command{
		Use: "dashboard", Short: "See and use the node in a browser", Args: exactly(),
		Long: `Dashboard prints a link to the pages of the node's gateway, and opens it in a browser where there is a display. The link logs
one browser in, once, within a minute: give this command again for another. A browser stays logged in for twelve hours.
In a 'shallot dev' network it can switch between all nodes.

From another machine, forward the port first and open the link there:
  ssh -L PORT:127.0.0.1:PORT THIS-MACHINE`,
		Example: `  shallot dashboard
  shallot dashboard --no-open
  shallot --home /tmp/try/provider-1 dashboard
  docker compose exec -T consumer-gateway cat /var/lib/shallot/token/gateway.token |
    shallot dashboard --gateway http://localhost:8090 --token-file -`,
		RunE: a.withGateway(&g, func(ctx context.Context, c *gatewayclient.Client, _ []string) error {
			code, lifetime, err := c.Code(ctx)
			if err != nil {
				return err
			}
			// Behind the #, where no server and no log ever sees it.
			link := c.URL + "/#code=" + url.QueryEscape(code)
			if a.json() {
				err = a.out().Object(render.Object{{Name: "url", Value: link}, {Name: "expires_in", Value: lifetime.String()}})
			} else {
				_, err = fmt.Fprintln(a.Stdout, link)
			}
			if err != nil || noOpen {
				return err
			}
			return a.browse(ctx, link)
		}),
	}
	g.add(cmd)
	cmd.Flags().BoolVar(&noOpen, "no-open", false, "print the link alone")
	return cmd
}

// browseTime is how long a program that opens browsers is waited for: it may be the browser itself, which does not end.
const browseTime = 3 * time.Second

// browse opens a link. That it cannot be opened is no failure: it has been printed.
func (a *app) browse(ctx context.Context, link string) error {
	if a.Browse == nil || (runtime.GOOS == "linux" && a.Getenv("DISPLAY") == "" && a.Getenv("WAYLAND_DISPLAY") == "") {
		a.say("there is no display here: open the link in a browser, within a minute")
		return nil
	}
	opened := make(chan error, 1)
	go func() { opened <- a.Browse(link) }()
	wait := time.NewTimer(browseTime)
	defer wait.Stop()
	select {
	case err := <-opened:
		if err != nil {
			a.say("no browser could be opened (%v): open the link in one, within a minute", err)
			return nil
		}
	case <-wait.C:
	case <-ctx.Done():
		return errInterrupted
	}
	a.say("opened in a browser")
	return nil
}

// realBrowser has this machine open a link. What the browser says goes nowhere: it is not about the node.
func realBrowser(link string) error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	browser.Stdout, browser.Stderr = null, null
	return browser.OpenURL(link)
}

// gatewayFlags name a gateway that is not in a home of this machine.
type gatewayFlags struct{ url, tokenFile string }

func (g *gatewayFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&g.url, "gateway", "", "`URL` of a gateway that is in no home of this machine, as in a container; give --token-file as well")
	f.StringVar(&g.tokenFile, "token-file", "", "`FILE` with its token; - is this command's stdin")
	_ = cmd.MarkFlagFilename("token-file")
}

// gateway finds the gateway of the node that the command is for.
func (a *app) gateway(g gatewayFlags) (*gatewayclient.Client, error) {
	switch {
	case (g.url == "") != (g.tokenFile == ""):
		return nil, usage("--gateway and --token-file belong together: where the gateway is, and what opens it")
	case g.url != "" && (a.home != "" || a.endpoint != ""):
		return nil, usage("--gateway says which node: leave --home and --endpoint out")
	case g.tokenFile == "-":
		return gatewayclient.New(g.url, a.Stdin)
	case g.url != "":
		return gatewayclient.Open(g.url, g.tokenFile)
	case a.endpoint != "":
		return nil, usage("--endpoint is where node answers, and this is the gateway's: give --home, or --gateway URL with --token-file FILE")
	}
	t, err := a.target()
	if t.Home == nil {
		return nil, err
	}
	at, gerr := supervisor.ReadGateway(*t.Home)
	switch {
	case gerr == nil:
		return gatewayclient.Open(at.URL, at.TokenFile) // also while node does not run: the pages say so themselves
	case err != nil:
		return nil, err
	case supervisor.IsNotExist(gerr):
		return nil, fault.Unavailable("GATEWAY_NOT_RUNNING", "the node in %s has no gateway that runs: read %s, or start the gateway where its processes are started one by one", t.Home.Dir, supervisor.LogFile(*t.Home, "gateway"))
	}
	return nil, gerr
}
