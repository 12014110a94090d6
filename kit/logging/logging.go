package logging

import (
	"io"
	"log/slog"
	"strings"
)

// Field names that every process uses alike.
const (
	KeyProcess   = "process"
	KeyError     = "error"
	KeyPeer      = "peer"
	KeyAddr      = "addr"
	KeyMethod    = "method"
	KeyReference = "reference" // what a masked error's message names too
	KeyStack     = "stack"
)

// Levels and Formats are what New understands.
var (
	Levels  = []string{"debug", "info", "warn", "error"}
	Formats = []string{"json", "text"}
)

// New makes a logger on w whose every line names the process and passes the guard. An empty or unknown level
// is info, an empty or unknown format JSON: config refuses unknown ones before.
func New(w io.Writer, level, format, process string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: l}
	var h slog.Handler
	if strings.EqualFold(format, "text") {
		h = slog.NewTextHandler(guard{w}, opts)
	} else {
		h = slog.NewJSONHandler(guard{w}, opts)
	}
	return slog.New(h).With(KeyProcess, process)
}

// Err is the attribute for an error, its cause included.
func Err(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.String(KeyError, err.Error())
}
