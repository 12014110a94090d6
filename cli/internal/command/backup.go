package command

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/backup"
	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/progress"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/kit/home"
)

// sayEvery is how often a command that nobody watches says how far it is.
const sayEvery = 10 * time.Second

func (a *app) backup() *cobra.Command {
	var store backup.Store
	cmd := &cobra.Command{
		Use: "backup DIR", Short: "Copy all that a node is into a directory, while it runs or not", Args: exactly("the directory"),
		Long: `Backup writes keys, tasks, results, pins and content of the node in --home into DIR, which is made or must be empty: files as
they are, each store as of one moment, and a manifest with the sums of all. The node may run, and goes on. Until the manifest
is there nothing takes DIR for a backup: what was broken off is removed, or says so.

Services that keep their state in PostgreSQL are found by their settings (store in config.yaml or the environment), or by
--store: all that services of the node have in that database is copied, in one snapshot.

Whoever can read DIR has the node's keys. Left out are logs, sockets and caches.`,
		Example: `  shallot backup /mnt/backup/2026-11-26
  shallot --home /var/lib/shallot backup --store 'postgres://shallot@db/shallot?sslmode=verify-full&sslrootcert=ca.crt' \
    --store-password-file password /mnt/backup/provider`,
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := a.homeOf()
			if err != nil {
				return err
			}
			if store, err = a.storeOf(cmd, h.Dir, store); err != nil {
				return err
			}
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			tell, end := a.moved()
			m, err := backup.Create(ctx, backup.Source{Home: h, Store: store, Progress: tell, Now: a.Now}, args[0])
			end()
			if interrupted(ctx) && err != nil {
				return errInterrupted
			}
			if err != nil {
				return err
			}
			a.say("whoever can read %s has the keys of this node: keep it as you keep those", render.Clean(args[0]))
			return a.printBackup(m, args[0])
		},
	}
	storeFlags(cmd, &store)
	return cmd
}

func storeFlags(cmd *cobra.Command, store *backup.Store) {
	cmd.Flags().StringVar(&store.URL, "store", "", "database of the node's services, a `URL` as their setting store has it (default: what their settings say)")
	cmd.Flags().StringVar(&store.PasswordFile, "store-password-file", "", "`FILE` whose first line is the password for it")
	_ = cmd.MarkFlagFilename("store-password-file")
}

// storeOf is the database that was named, else that of the services' settings.
func (a *app) storeOf(cmd *cobra.Command, dir string, asked backup.Store) (backup.Store, error) {
	if asked.URL == "" && asked.PasswordFile != "" {
		return asked, usage("--store-password-file is for a database, and --store names none")
	}
	if cmd.Flags().Changed("store") {
		return asked, nil
	}
	return backup.StoreOf(dir, a.Getenv)
}

func (a *app) restore() *cobra.Command {
	var store backup.Store
	cmd := &cobra.Command{
		Use: "restore DIR", Short: "Bring a node back from a backup", Args: exactly("the directory"),
		Long: `Restore checks every file of the backup in DIR, and then brings the node back in --home, where there must be none. It has its
identity again, its keys, and its tasks as they were when the backup was made: what was waiting goes on, and other nodes are
asked about what happened since. No process starts on that home before all of it is there; a restore that was broken off is
given again. Stores that were in PostgreSQL come back in the database that --store or the settings name, which must have
none of them; a store cannot be moved from files to PostgreSQL, or back.

A node that has been restored takes the place of the one that was backed up. That one must never run again: two nodes with
one identity take each other's tasks and lose them. Where the old one runs on this machine restore refuses; where it may run
on another one, nobody but you can know.`,
		Example: `  shallot --home /var/lib/shallot restore /mnt/backup/provider
  shallot restore /mnt/backup/2026-11-26 && shallot up`,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := a.home
			if dir == "" {
				dir = nodeclient.DefaultPlaces(a.Getenv).Up
			}
			var err error
			settings := dir
			if _, err := os.Stat(filepath.Join(dir, "config.yaml")); err != nil { // the node gets those of the backup
				settings = backup.HomeIn(args[0])
			}
			if store, err = a.storeOf(cmd, settings, store); err != nil {
				return err
			}
			ctx, stop := a.interruptible(cmd.Context())
			defer stop()
			tell, end := a.moved()
			m, kept, err := backup.Restore(ctx, backup.Target{Dir: dir, Store: store, Progress: tell}, args[0])
			end()
			if interrupted(ctx) && err != nil {
				return errInterrupted
			}
			if err != nil {
				return err
			}
			for _, f := range kept {
				a.say("%s of this home was left as it is; that of the backup has other settings, and is in %s", f, render.Clean(args[0]))
			}
			a.say("the node that this is a backup of must never run again: two with one identity take each other's tasks")
			return a.printBackup(m, dir)
		},
	}
	storeFlags(cmd, &store)
	return cmd
}

// homeOf is the home that the command is for. It is only looked at.
func (a *app) homeOf() (home.Home, error) {
	dir := a.home
	if dir == "" {
		dir = nodeclient.DefaultPlaces(a.Getenv).Up
	}
	return home.Find(dir)
}

// moved says on stderr how many bytes are done, once that takes long: on a terminal as a bar, else as a line now and then.
func (a *app) moved() (tell backup.Progress, end func()) {
	line := a.waiting()
	if isTerminal(a.Stderr) {
		return func(what string, done, total uint64) { line.Bytes(what, done, total) }, line.Stop
	}
	next := a.Now().Add(progress.After)
	return func(what string, done, total uint64) {
		if now := a.Now(); now.After(next) {
			next = now.Add(sayEvery)
			a.say("%s: %s of %s", what, render.Bytes(done), render.Bytes(max(done, total)))
		}
	}, line.Stop
}

func (a *app) printBackup(m *backup.Manifest, dir string) error {
	if a.json() {
		return a.out().Object(render.Object{{Name: "directory", Value: dir}, {Name: "id", Value: m.ID}, {Name: "made_at", Value: m.MadeAt.UTC().Format(time.RFC3339)},
			{Name: "version", Value: m.Version}, {Name: "role", Value: m.Role}, {Name: "mode", Value: m.Mode}, {Name: "files", Value: len(m.Files)}, {Name: "bytes", Value: m.Size()}})
	}
	_, err := fmt.Fprintf(a.Stdout, "%s: %d files, %s, as of %s\n", render.Clean(dir), len(m.Files), render.Bytes(uint64(m.Size())), m.MadeAt.Local().Format(time.DateTime))
	return err
}
