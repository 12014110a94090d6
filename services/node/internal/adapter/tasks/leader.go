package tasks

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// reasonNotLeading is the task service's for what another one of its replicas has to answer.
const reasonNotLeading = "NOT_LEADING"

// elsewhere tells whether another replica may do what this one would not.
func elsewhere(err error) bool { return fault.From(err).Reason == reasonNotLeading }

// nextLeader is how long to wait before the next replica is tried.
var nextLeader = domain.Backoff{First: 5 * time.Millisecond, Max: 100 * time.Millisecond}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// atLeader makes a call until it comes to the replica that leads, which the client's balancing reaches in turn. UNAVAILABLE: there was none until ctx ended.
func atLeader(ctx context.Context, call func() error) error {
	var other error // what another replica said last
	for n := 1; ; n++ {
		err := call()
		f := fault.From(err)
		over := ctx.Err() != nil || f != nil && f.Code == codes.DeadlineExceeded // a server may notice first
		switch {
		case err == nil:
			return nil
		case elsewhere(err):
			other = err
			sleep(ctx, nextLeader.After(n, nil))
		case !over || other == nil:
			return err
		}
		if over || ctx.Err() != nil {
			return fault.Wrap(other, codes.Unavailable, reasonNotLeading, "no replica of the task service leads yet: try again")
		}
	}
}
