package pgstore

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/shallot-net/shallot/kit/logging"
)

// Listen calls heard with each notification's text, and with "" whenever some may have been missed: at first, and when the server was away. It blocks until ctx ends. heard must not block.
func (db *DB) Listen(ctx context.Context, channel string, heard func(text string)) error {
	for pause := firstPause; ; {
		err := db.listen(ctx, channel, func(text string) {
			pause = firstPause
			heard(text)
		})
		if ctx.Err() != nil {
			return nil
		}
		db.cfg.Log.Debug("notifications broke off", logging.Err(err))
		if !wait(ctx, pause) {
			return nil
		}
		pause = min(2*pause, longPause)
	}
}

// patience is after how long without a word a connection is looked at.
const patience = 3 * readTimeout

func (db *DB) listen(ctx context.Context, channel string, heard func(string)) error {
	conn, err := db.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if _, err := conn.Exec(ctx, `LISTEN `+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	heard("")
	for {
		quiet, cancel := context.WithTimeout(ctx, patience)
		n, err := conn.WaitForNotification(quiet)
		silent := quiet.Err() != nil
		cancel()
		switch {
		case err == nil:
			heard(n.Payload)
		case ctx.Err() != nil || !silent || conn.IsClosed():
			return err
		default:
			if err := ping(ctx, conn); err != nil {
				return err
			}
		}
	}
}

func ping(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return conn.Ping(ctx)
}
