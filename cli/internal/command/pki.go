package command

import (
	"archive/tar"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/pki"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/kit/authority"
	"github.com/shallot-net/shallot/kit/logging"
)

const (
	shortestLifetime = time.Minute
	longestLifetime  = 30 * 24 * time.Hour
)

func (a *app) pki() *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "pki", Short: "Supply the services of a node with certificates",
		Long: `Services that do not share a Unix socket speak mutual TLS, by certificates of an authority that belongs to this node
alone. 'pki run' keeps the authority's key, in HOME/state/pki, and a directory for each service supplied.`,
		Example: "  shallot --home /var/lib/shallot pki run /pki/broker /pki/task /pki/node\n  shallot pki check /pki/task",
	})
	cmd.AddCommand(a.pkiRun(), a.pkiCheck())
	return cmd
}

func targets(args, hosts []string) ([]pki.Target, error) {
	var out []pki.Target
	for _, arg := range args {
		t, err := pki.ParseTarget(arg)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o pki.Target) bool { return o.Dir == t.Dir }) {
			return nil, usage("%s is named twice: each service has a directory of its own", t.Dir)
		}
		if t.Service == "node" { // which others than services call, who know it by the name of its machine
			t.Hosts = append(append(t.Hosts, "localhost", "127.0.0.1", "::1"), hosts...)
		}
		out = append(out, t)
	}
	return out, nil
}

func someTargets(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage("a directory is missing: %s", cmd.UseLine())
	}
	return nil
}

func (a *app) pkiRun() *cobra.Command {
	var hosts []string
	lifetime := pki.Lifetime
	cmd := &cobra.Command{
		Use: "run [NAME=]DIR...", Short: "Keep directories of services supplied with certificates, until stopped", Args: someTargets,
		Long: `Run makes the node's authority where there is none, and writes ca.crt, tls.crt, tls.key and revoked.crl into each service's
directory, all four at once. Certificates last a day and are renewed when half of it is over; a client that is revoked is
published within seconds. The service is the directory's name (task, consumer-task), or NAME; postgres is the server of the
services' stores, and cli whoever gives commands beside them. A second node in one deployment has a home, and so an
authority, of its own.

Services are started with --tls.dir DIR, as the same user as this command. It prints one JSON line on stderr for each
thing that it does, and needs no network.`,
		Example: `  shallot --home /var/lib/shallot pki run /pki/broker /pki/discovery /pki/metric /pki/task /pki/node /pki/gateway
  shallot --home /var/lib/shallot pki run --host node.example.org node=/etc/shallot/tls`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if lifetime < shortestLifetime || lifetime > longestLifetime {
				return usage("--lifetime is %v: it must be %v to %v", lifetime, shortestLifetime, longestLifetime)
			}
			list, err := targets(args, hosts)
			if err != nil {
				return err
			}
			h, err := a.ownHome()
			if err != nil {
				return err
			}
			store, err := pki.Open(h, a.Now)
			if err != nil {
				return err
			}
			ctx, stop := a.until(cmd.Context(), a.Outlive())
			defer stop()
			log := logging.New(a.Stderr, "info", "json", pki.Process)
			err = pki.Run(ctx, h, pki.NewPublisher(store, list, lifetime, log), func() { log.Info("all directories are supplied") })
			if err == nil {
				log.Info("stopped")
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&hosts, "host", nil, "`NAME` or IP address by which others than this program call the node service, repeatable")
	cmd.Flags().DurationVar(&lifetime, "lifetime", lifetime, "how long a certificate lasts, and a revocation list")
	return cmd
}

func (a *app) pkiCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check [NAME=]DIR...", Short: "Tell whether services could start with these directories", Args: someTargets,
		Long:    "Check reads each directory as its service would. Exit code 0 says that all are well.",
		Example: "  shallot pki check /pki/broker /pki/task",
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := targets(args, nil)
			if err != nil {
				return err
			}
			for _, t := range list {
				if err := t.Check(a.Now); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (a *app) client() *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "client", Short: "Let people and programs on other machines call a node, and take it back",
		Long: `A client has a certificate of the node's authority (see 'shallot pki') and may do what the node's users can. The commands
are given where 'shallot pki run' is, with the same --home.`,
		Example: `  shallot client add laptop --out laptop/
  shallot --endpoint node.example.org:7500 --cert laptop/ peers   # there
  shallot client revoke laptop`,
	})
	cmd.AddCommand(a.clientAdd(), a.clientRevoke(), a.clientList())
	return cmd
}

func (a *app) withStore(fn func(cmd *cobra.Command, s *pki.Store, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		h, err := a.ownHome()
		if err != nil {
			return err
		}
		s, err := pki.Open(h, a.Now)
		if err != nil {
			return err
		}
		return fn(cmd, s, args)
	}
}

func (a *app) clientAdd() *cobra.Command {
	var out string
	lifetime := pki.ClientLifetime
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a client's certificate", Args: exactly("the client's name"),
		Long: `Add writes ca.crt, tls.crt and tls.key, which together are the client: keep them as a password. With --out - they are
written to stdout as a tar archive, and no copy is left.`,
		Example: `  shallot client add laptop
  shallot client add ci --out ci/ --lifetime 720h
  docker compose exec -T pki shallot client add laptop --out - | tar -x`,
		RunE: a.withStore(func(_ *cobra.Command, s *pki.Store, args []string) error {
			if lifetime < shortestLifetime || lifetime > pki.MaxClientLifetime {
				return usage("--lifetime is %v: it must be %v to %v", lifetime, shortestLifetime, pki.MaxClientLifetime)
			}
			name := args[0]
			dir := out
			if dir == "" || dir == "-" { // which is what the archive calls it, too
				dir = name
			}
			c, err := s.Add(name, lifetime, func(p *authority.Pair) error {
				if out == "-" {
					return writeTar(a.Stdout, name, pki.ClientFiles(s.Cert(), p), a.Now())
				}
				return pki.WriteClient(dir, s.Cert(), p)
			})
			if err != nil {
				return err
			}
			a.say("%s may call this node until %s: shallot --endpoint HOST:PORT --cert %s node", name, c.Expires.Format(time.DateOnly), shellQuote(dir))
			if out == "-" {
				return nil
			}
			if a.json() {
				return a.out().Object(clientObject(c, a.Now()))
			}
			_, err = fmt.Fprintln(a.Stdout, render.Clean(dir))
			return err
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "`DIR` to write the files to, or - (default: the client's name)")
	cmd.Flags().DurationVar(&lifetime, "lifetime", lifetime, "how long the certificate lasts")
	_ = cmd.MarkFlagDirname("out")
	return cmd
}

func writeTar(w io.Writer, dir string, files []pki.File, now time.Time) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		if err := t.WriteHeader(&tar.Header{Name: dir + "/" + f.Name, Mode: 0o600, Size: int64(len(f.Data)), ModTime: now}); err != nil {
			return err
		}
		if _, err := t.Write(f.Data); err != nil {
			return err
		}
	}
	return t.Close()
}

func (a *app) clientRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME", Short: "Take a client's certificate back", Args: exactly("the client's name"),
		Long:    "Revoke ends what the client has open and lets it call no more, some seconds later where 'shallot pki run' runs, and from its next start where it does not.",
		Example: "  shallot client revoke laptop",
		RunE: a.withStore(func(_ *cobra.Command, s *pki.Store, args []string) error {
			if err := s.Revoke(args[0]); err != nil {
				return err
			}
			a.say("%s is revoked", args[0])
			return nil
		}),
	}
}

func (a *app) clientList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List clients", Args: exactly(),
		Example: "  shallot client ls --output json",
		RunE: a.withStore(func(_ *cobra.Command, s *pki.Store, _ []string) error {
			clients, err := s.Clients()
			if err != nil {
				return err
			}
			return a.printClients(clients)
		}),
	}
}

func clientObject(c pki.Client, now time.Time) render.Object {
	return render.Object{{Name: "name", Value: c.Name}, {Name: "state", Value: clientState(c, now)}, {Name: "added", Value: c.Added.UTC().Format(time.RFC3339)},
		{Name: "expires", Value: c.Expires.UTC().Format(time.RFC3339)}, {Name: "serial", Value: c.Serial}}
}

func clientState(c pki.Client, now time.Time) string {
	switch {
	case c.Revoked != nil:
		return "revoked"
	case !now.Before(c.Expires):
		return "expired"
	}
	return "valid"
}

func (a *app) printClients(clients []pki.Client) error {
	now := a.Now()
	if a.json() {
		list := make([]render.Object, len(clients))
		for i, c := range clients {
			list[i] = clientObject(c, now)
		}
		return a.out().Object(render.Object{{Name: "clients", Value: list}})
	}
	if len(clients) == 0 {
		a.say("there are no clients: 'shallot client add NAME' makes one")
		return nil
	}
	rows := make([][]render.Cell, len(clients))
	for i, c := range clients {
		state := render.Cell{Text: clientState(c, now)}
		if state.Text != "valid" {
			state.Colour = render.Faint
		}
		rows[i] = []render.Cell{{Text: c.Name}, state, {Text: c.Added.UTC().Format(time.DateOnly)}, {Text: c.Expires.UTC().Format(time.DateOnly)}}
	}
	return a.out().Table([]string{"client", "state", "added", "expires"}, rows)
}
