package supervisor

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"

	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/shallot-net/shallot/kit/home"
)

// Bounds of one process's log: the current file and the rotated ones beside it.
const (
	logMegabytes = 10
	logBackups   = 2
	maxLine      = 4 << 10 // of a line that is remembered or mirrored
)

// processLog takes what one process writes. It never fails: a full disk must not end the process through its stderr.
type processLog struct {
	file   *lumberjack.Logger
	mirror func(line string) // may be nil

	mu   sync.Mutex
	line []byte // the one that has not ended yet
	last string
}

func openLog(h home.Home, process string, mirror func(line string)) *processLog {
	return &processLog{mirror: mirror, file: &lumberjack.Logger{Filename: LogFile(h, process), MaxSize: logMegabytes, MaxBackups: logBackups}}
}

// Write implements io.Writer.
func (l *processLog) Write(p []byte) (int, error) {
	_, _ = l.file.Write(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		if room := maxLine - len(l.line); room > 0 {
			l.line = append(l.line, line[:min(room, len(line))]...)
		}
		if ended {
			l.endLine()
		}
		rest = after
	}
	return len(p), nil
}

func (l *processLog) endLine() {
	line := strings.TrimSpace(strings.ToValidUTF8(string(l.line), "\uFFFD"))
	l.line = l.line[:0]
	if line == "" {
		return
	}
	l.last = line
	if l.mirror != nil {
		l.mirror(line)
	}
}

// takeLast returns the last line since it was asked before.
func (l *processLog) takeLast() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		l.endLine()
	}
	last := l.last
	l.last = ""
	return last
}

func (l *processLog) Close() error { return l.file.Close() }

// Printer writes whole lines from many goroutines.
type Printer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewPrinter writes to w.
func NewPrinter(w io.Writer) *Printer { return &Printer{w: w} }

// Printf writes one line.
func (p *Printer) Printf(format string, args ...any) {
	line := fmt.Sprintf(format, args...) + "\n"
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.w, line)
}
