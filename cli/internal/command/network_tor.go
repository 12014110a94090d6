package command

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/tor"
)

// networkDemoTor is what a deployment that tries anonymous mode in containers runs: people have `dev --anonymous`.
func (a *app) networkDemoTor() *cobra.Command {
	var clients string
	cmd := &cobra.Command{
		Use: "demo-tor DIR", Short: "Run a private Tor network on loopback, to try things", Args: exactly("DIR"), Hidden: true,
		Long: `A private Tor network of six tors on this machine's loopback runs until it is stopped. It hides nothing: one hand holds every key. Its keys are
in DIR, and DIR/ready is there while clients can use it. --clients FILE gets the lines that a tor needs in its torrc to be one.`,
		Example: "  shallot network demo-tor --clients /tmp/clients.torrc /tmp/tor-network",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			err := a.demoTor(ctx, args[0], clients)
			if err != nil && interrupted(ctx) {
				return nil // that is how it ends
			}
			return err
		},
	}
	cmd.Flags().StringVar(&clients, "clients", "", "`FILE` for the torrc lines of its clients")
	_ = cmd.MarkFlagRequired("clients")
	return cmd
}

func (a *app) demoTor(ctx context.Context, dir, clients string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	ready := filepath.Join(dir, "ready")
	if err := os.Remove(ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.FailedPrecondition("HOME_UNUSABLE", "cannot remove %s, which is left from before", ready).Because(err)
	}
	program, err := a.Finder.FindTor()
	if err != nil {
		return err
	}
	network, err := tor.StartPrivate(ctx, tor.PrivateConfig{Dir: dir, Program: program})
	if err != nil {
		return err
	}
	defer network.Close()
	if err := home.WriteFile(clients, network.Client(dir, dir).Test.Torrc(), 0o600); err != nil {
		return err
	}
	if err := network.Ready(ctx, func(percent int, waiting string) { a.say("private Tor network: %d %% %s", percent, waiting) }); err != nil {
		return err
	}
	if err := home.WriteFile(ready, nil, 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(ready) }()
	a.say("private Tor network: ready")
	<-ctx.Done()
	return nil
}
