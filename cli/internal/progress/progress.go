// Package progress says on a terminal what a command waits for, once that takes long.
package progress

import (
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// After is how long a command may take before it says what it waits for.
const After = 2 * time.Second

const redraw = 100 * time.Millisecond

// Line is the one line at the bottom of a terminal: a spinner with words, or a bar for bytes or for things that are counted. All methods may be called
// from many goroutines; on a Line that is off they do nothing.
type Line struct {
	w       io.Writer
	after   time.Duration
	started time.Time

	mu          sync.Mutex
	text        string
	done, total uint64
	kind        kind
	bar         *progressbar.ProgressBar
	barText     string
	barTotal    uint64
	barKind     kind
	stop        chan struct{}
	stopped     sync.WaitGroup
}

// kind is what the line shows.
type kind int

const (
	showWords kind = iota
	showBytes
	showThings
)

// Start shows the line on w after a while; off, it never does.
func Start(w io.Writer, on bool, after time.Duration) *Line {
	l := &Line{w: w, after: after, started: time.Now()}
	if on {
		l.stop = make(chan struct{})
		l.stopped.Go(func() { l.loop(l.stop) })
	}
	return l
}

// Set says what is waited for.
func (l *Line) Set(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text, l.kind = text, showWords
}

// Bytes says how much of something has been moved; a total of 0 is not known.
func (l *Line) Bytes(text string, done, total uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text, l.done, l.total, l.kind = text, done, total, showBytes
}

// Count says how many of a number of things are done: with their number a second, and the time that is left.
func (l *Line) Count(text string, done, total uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text, l.done, l.total, l.kind = text, done, total, showThings
}

// Stop takes the line away and returns when nothing more is written. It may be called again.
func (l *Line) Stop() {
	l.mu.Lock()
	stop := l.stop
	l.stop = nil
	l.mu.Unlock()
	if stop == nil {
		return
	}
	close(stop)
	l.stopped.Wait()
}

func (l *Line) loop(stop <-chan struct{}) {
	wait := time.NewTimer(l.after)
	defer wait.Stop()
	for {
		select {
		case <-stop:
			l.clear()
			return
		case <-wait.C:
			l.draw()
			wait.Reset(redraw)
		}
	}
}

func (l *Line) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bar != nil {
		_ = l.bar.Clear()
		_ = l.bar.Exit()
	}
}

func (l *Line) draw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text == "" {
		return
	}
	text, total := l.text, uint64(0)
	if l.kind != showWords {
		total = l.total
	} else {
		text += " (" + time.Since(l.started).Truncate(time.Second).String() + ")"
	}
	if l.bar == nil || l.barTotal != total || l.barKind != l.kind {
		if l.bar != nil {
			_ = l.bar.Clear()
		}
		l.bar, l.barTotal, l.barKind, l.barText = l.newBar(text, total), total, l.kind, text
	}
	if l.barText != text {
		l.bar.Describe(text)
		l.barText = text
	}
	if l.kind != showWords {
		_ = l.bar.Set64(int64(min(l.done, 1<<62)))
		return
	}
	_ = l.bar.Add(1) // turns the spinner
}

func (l *Line) newBar(text string, total uint64) *progressbar.ProgressBar {
	opts := []progressbar.Option{
		progressbar.OptionSetWriter(l.w), progressbar.OptionClearOnFinish(), progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionSetWidth(24), progressbar.OptionSpinnerType(14), progressbar.OptionSetElapsedTime(l.kind != showWords), progressbar.OptionSetDescription(text),
	}
	if l.kind == showWords {
		return progressbar.NewOptions64(-1, append(opts, progressbar.OptionSetSpinnerChangeInterval(0))...)
	}
	size := int64(-1)
	if total > 0 {
		size = int64(min(total, 1<<62))
	}
	if l.kind == showThings {
		return progressbar.NewOptions64(size, append(opts, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("inputs"),
			progressbar.OptionSetPredictTime(true))...)
	}
	return progressbar.NewOptions64(size, append(opts, progressbar.OptionShowBytes(true), progressbar.OptionShowCount(), progressbar.OptionUseIECUnits(true))...)
}
