package command

import (
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	"github.com/shallot-net/shallot/cli/internal/tree"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/treepath"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

func (a *app) putTree(ctx context.Context, c *nodeclient.Client, dir string, hidden bool) (*nodev1.PutContentResponse, error) {
	line := a.waiting()
	defer line.Stop()
	l, err := tree.List(dir, tree.Options{Hidden: hidden, Strict: true, MaxFiles: tree.MaxFiles})
	if err != nil {
		return nil, usage("%v", err)
	}
	defer l.Close()
	total := uint64(0)
	for _, f := range l.Files {
		total += uint64(max(f.Size, 0))
	}
	name := baseName(dir)
	line.Set("storing " + name)
	resp, err := c.PutTree(ctx, l, func(sent uint64) { line.Bytes("storing "+name, sent, total) })
	if err == nil && l.Hidden > 0 {
		line.Stop()
		a.say("what begins with a dot was left out (%d): --hidden takes it, too", l.Hidden)
	}
	return resp, err
}

func (a *app) contentGet() *cobra.Command {
	var file, dir string
	var from []string
	cmd := &cobra.Command{
		Use: "get CID[/PATH]", Short: "Fetch a file or a directory, from this node or from peers", Args: exactly("CID"),
		Long: `Get prints a file, or one in a directory by its path. With --output-dir it fetches a directory, or one in it, whole or not at
all. A directory with links in it is refused.

An anonymous node asks nobody who is not named with --from, and gets what that peer gives it: what was made for it, and of an
anonymous peer nothing else.`,
		Example: `  shallot content get bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy > report.pdf
  shallot content get bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku/docs/index.html
  shallot content get bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku --output-dir site`,
		RunE: a.withNode(func(cmd *cobra.Command, c *nodeclient.Client, args []string) error {
			cid, path := cidPath(args[0])
			if dir != "" {
				return a.getTree(cmd.Context(), c, nodeclient.Wanted{CID: cid, Path: path, From: from}, dir)
			}
			line := a.waiting()
			defer line.Stop()
			line.Set("looking for " + args[0])
			get := func(w io.Writer) error {
				progress := func(done, total uint64) { line.Bytes("fetching", done, total) }
				if file == "" && isTerminal(a.Stdout) { // the bytes themselves are to be seen there
					w, progress = quiet{line, w}, func(uint64, uint64) {}
				}
				err := c.Content(cmd.Context(), nodeclient.Wanted{CID: cid, Path: path, From: from}, w, progress)
				if f := fault.From(err); err != nil && f.Reason == "CONTENT_IS_DIRECTORY" {
					return fmt.Errorf("%w; 'shallot content ls %s' lists it, and --output-dir DIR fetches it", err, args[0])
				}
				return err
			}
			return a.printBody(get, file, render.Object{{Name: "cid", Value: args[0]}}, "data")
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "write it to this `FILE`, whole or not at all, instead of to stdout")
	cmd.Flags().StringVar(&dir, "output-dir", "", "make this `DIR` of the directory; it must not be there, or be empty")
	cmd.Flags().StringArrayVar(&from, "from", nil, "a `PEER` that should have it, by peer id or alias, repeatable; asked first, and by an anonymous node alone")
	exclusive(cmd, "file", "output-dir")
	_ = cmd.MarkFlagDirname("output-dir")
	return cmd
}

func (a *app) getTree(ctx context.Context, c *nodeclient.Client, of nodeclient.Wanted, dir string) error {
	if err := outputDir(dir); err != nil {
		return err
	}
	line := a.waiting()
	defer line.Stop()
	line.Set("looking for " + of.CID)
	entries, err := c.Listing(ctx, of, true)
	if err != nil {
		return err
	}
	var files []tree.File
	cids, full, dirs, total := map[string]string{}, map[string]bool{}, []string(nil), uint64(0)
	for _, e := range entries {
		full[path.Dir(e.GetPath())] = true
		switch e.GetKind() {
		case "directory":
			dirs = append(dirs, e.GetPath())
		case "file", "raw":
			files = append(files, tree.File{Path: e.GetPath(), Size: int64(e.GetSize())}) //nolint:gosec // a size that is not one has bytes missing
			cids[e.GetPath()] = e.GetCid()
			total += e.GetSize()
		default:
			return fmt.Errorf("%q in the directory is neither a file nor a directory: fetch what you want of it by its path", treepath.Shown(e.GetPath()))
		}
	}
	var empty []string
	for _, d := range dirs {
		if !full[d] {
			empty = append(empty, d)
		}
	}
	before := uint64(0)
	if err := tree.Write(dir, files, empty, func(f tree.File, w io.Writer) error {
		err := c.Content(ctx, nodeclient.Wanted{CID: cids[f.Path], From: of.From}, w, func(done, _ uint64) { line.Bytes("fetching "+filepath.Base(f.Path), before+done, total) })
		before += uint64(f.Size) //nolint:gosec // see above
		return err
	}); err != nil {
		return err
	}
	line.Stop()
	if a.json() {
		return a.out().Object(render.Object{{Name: "cid", Value: of.CID}, {Name: "output_dir", Value: dir}, {Name: "files", Value: len(files)}, {Name: "size", Value: total}})
	}
	a.say("%d files (%s) are in %s", len(files), render.Bytes(total), dir)
	return nil
}
