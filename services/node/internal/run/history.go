package run

import (
	"context"

	"github.com/shallot-net/shallot/kit/findings"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/adapter/probe"
	"github.com/shallot-net/shallot/services/node/internal/app"
)

// figures is where the history has its points from.
type figures struct{ n *Node }

// Figures asks all processes.
func (f figures) Figures(ctx context.Context) (app.Figures, error) {
	all, err := f.n.gather(ctx)
	if err != nil {
		return app.Figures{}, err
	}
	return probe.FiguresOf(all), nil
}

// Free looks at the file system of the home.
func (f figures) Free() uint64 {
	if f.n.cfg.Home == "" {
		return 0
	}
	free, _ := findings.FreeSpace(f.n.cfg.Home) // 0: it is not known
	return free
}

// observers hear of a consumer's tasks.
type observers []app.TaskObserver

// TaskChanged tells all.
func (o observers) TaskChanged(t *taskv1.Task) {
	for _, one := range o {
		one.TaskChanged(t)
	}
}
