package command

import (
	"context"
	"io"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/progress"
	"github.com/shallot-net/shallot/cli/internal/tree"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// writeFiles brings the files of a task's result into a new directory.
func writeFiles(ctx context.Context, c *nodeclient.Client, line *progress.Line, t *taskv1.Task, dir string) error {
	files := make([]tree.File, len(t.GetResult().GetFiles()))
	for i, f := range t.GetResult().GetFiles() {
		files[i] = tree.File{Path: f.GetPath(), Size: int64(f.GetSize())} //nolint:gosec // a size that is not one has bytes missing
	}
	return tree.Write(dir, files, nil, func(f tree.File, w io.Writer) error {
		line.Set("fetching " + f.Path)
		return c.Result(ctx, t.GetId(), "output:"+f.Path, w, 0)
	})
}

// outputDir checks that --output-dir can be written, before a task is run for it.
func outputDir(dir string) error {
	if dir == "" {
		return nil
	}
	if err := tree.Empty(dir); err != nil {
		return usage("--output-dir: %v", err)
	}
	return nil
}
