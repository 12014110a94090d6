package pgstore

import (
	"context"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// closeTimeout is how long Close waits for a server that is away, and how long a process that ends still asks what became of a commit.
const closeTimeout = 3 * time.Second

// errUnknown is a commit of which nobody will ever know.
var errUnknown = fault.Unavailable(ReasonUnknown, "this process ends, and PostgreSQL went away in the middle of a commit: it may count or not")

// ending is the end of the process. Whoever commits waits for the answer whatever its own context says, and Close comes after all of those: so it is the end of the process itself that has
// to bound what a server that is away is waited for.
type ending struct {
	process context.Context // that Open was given
	near    context.Context // ends some time after it, or with Close
}

func (db *DB) watchEnd(process context.Context) {
	near, cancel := context.WithCancel(db.background)
	db.ending = ending{process, near}
	context.AfterFunc(process, func() { time.AfterFunc(closeTimeout, cancel) })
	context.AfterFunc(db.background, cancel)
}

// patience is for how long one group may take.
func (db *DB) patience() (context.Context, context.CancelFunc) {
	if db.ending.process.Err() != nil {
		return context.WithTimeout(db.background, closeTimeout)
	}
	ctx, cancel := context.WithTimeout(db.background, writeTimeout)
	stop := context.AfterFunc(db.ending.near, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}
