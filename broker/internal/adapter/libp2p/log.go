package libp2p

import (
	"context"
	"log/slog"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
)

// LogTo sends what the libraries log to log, errors only: they name peers and addresses freely, and log's guard is the last to see them.
func LogTo(log *slog.Logger) {
	gologshim.SetDefaultHandler(onlyErrors{log.Handler()})
	golog.SetupLogging(golog.Config{Format: golog.JSONOutput, Level: golog.LevelFatal})
}

type onlyErrors struct{ slog.Handler }

func (o onlyErrors) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelError && o.Handler.Enabled(ctx, l)
}

func (o onlyErrors) WithAttrs(a []slog.Attr) slog.Handler { return onlyErrors{o.Handler.WithAttrs(a)} }
func (o onlyErrors) WithGroup(g string) slog.Handler      { return onlyErrors{o.Handler.WithGroup(g)} }
