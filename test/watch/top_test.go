package watch

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"

	"github.com/shallot-net/shallot/test/internal/dev"
)

// terminal is a program on a terminal of some size.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	pty  *os.File
	mu   sync.Mutex
	emu  *vt.Emulator
	raw  strings.Builder
	news chan struct{}
	over chan struct{} // the program has closed its terminal
}

func open(t *testing.T, width, height int, env []string, name string, args ...string) *terminal {
	t.Helper()
	x := &terminal{t: t, cmd: exec.CommandContext(t.Context(), name, args...), emu: vt.NewEmulator(width, height), news: make(chan struct{}, 1), over: make(chan struct{})}
	x.cmd.Env = append(os.Environ(), append([]string{"TERM=xterm-256color"}, env...)...)
	f, err := pty.StartWithSize(x.cmd, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)})
	if err != nil {
		t.Fatal(err)
	}
	x.pty = f
	answered := make(chan struct{})
	go func() { // what the terminal answers when it is asked what it is
		defer close(answered)
		_, _ = io.Copy(f, x.emu)
	}()
	go func() {
		defer close(x.over)
		b := make([]byte, 4096)
		for {
			n, err := f.Read(b)
			if n > 0 {
				x.mu.Lock()
				x.raw.Write(b[:n])
				_, _ = x.emu.Write(b[:n])
				x.mu.Unlock()
				select {
				case x.news <- struct{}{}:
				default:
				}
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill()
		_ = f.Close()
		<-x.over
		if in, ok := x.emu.InputPipe().(io.Closer); ok { // not emu.Close, which its own Read does not expect
			_ = in.Close()
			<-answered
		}
	})
	return x
}

// screen is what the terminal shows, line by line.
func (x *terminal) screen() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return strings.Split(strings.TrimRight(x.emu.String(), "\n"), "\n")
}

func (x *terminal) wait(what string, ok func(lines []string) bool) []string {
	x.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		lines := x.screen()
		if ok(lines) {
			return lines
		}
		select {
		case <-x.news:
		case <-deadline.C:
			x.t.Fatalf("waited too long until %s:\n%s", what, strings.Join(lines, "\n"))
		}
	}
}

func (x *terminal) shows(words ...string) []string {
	x.t.Helper()
	return x.wait("it shows "+strings.Join(words, ", "), func(lines []string) bool {
		all := strings.Join(lines, "\n")
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(all, w) })
	})
}

func (x *terminal) key(s string) {
	x.t.Helper()
	if _, err := io.WriteString(x.pty, s); err != nil {
		x.t.Fatal(err)
	}
}

// TestTop watches a provider live at two sizes, while it works, while it is away, and when it is back.
func TestTop(t *testing.T) {
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shallot-top")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	n, err := dev.Start(ctx, dev.Config{Bin: bin, Dir: dir, Providers: 1, Consumers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	}()
	for range 3 {
		if out, talk, code, err := n.CLI(ctx, "consumer-1", nil, "run", "sum", "1", "2"); err != nil || code != 0 {
			t.Fatalf("%d, %v, %s%s", code, err, out, talk)
		}
	}
	shallot := filepath.Join(bin, "shallot")
	small := open(t, 80, 24, []string{"NO_COLOR=1"}, shallot, "--home", n.Home("provider-1"), "top")
	large := open(t, 132, 43, nil, shallot, "--home", n.Home("provider-1"), "top")
	for _, x := range []*terminal{small, large} {
		lines := x.shows("provider, open", "ready", "online", "discovery", "serving", "MiB", "COMPLETED", "p99", "q quit", "3 in the last minute", "processor")
		width, height := 80, 24
		if x == large {
			width, height = 132, 43
		}
		if len(lines) > height {
			t.Errorf("%d lines on %d", len(lines), height)
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) > width {
				t.Errorf("%d wide: %q", width, l)
			}
		}
	}
	small.mu.Lock()
	if raw := small.raw.String(); strings.Contains(raw, "\x1b[31m") || strings.Contains(raw, "\x1b[32m") {
		t.Error("NO_COLOR has colours")
	}
	small.mu.Unlock()
	large.key("s")
	large.shows("sort: state")
	large.key("\x1b[B\x1b[B")

	// Stopped, it does not answer.
	if err := n.Signal("provider-1", "node", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	small.shows("the node is away", "COMPLETED") // and what was known last
	large.shows("the node is away")
	if err := n.Signal("provider-1", "node", syscall.SIGKILL); err != nil { // the supervisor starts another
		t.Fatal(err)
	}
	for _, x := range []*terminal{small, large} {
		x.wait("the node is back", func(lines []string) bool {
			all := strings.Join(lines, "\n")
			return !strings.Contains(all, "away") && strings.Contains(all, "COMPLETED") && strings.Contains(all, "serving")
		})
	}
	small.key("q")
	<-small.over
	if err := small.cmd.Wait(); err != nil {
		t.Errorf("q ends with %v", err)
	}
	large.key("\x03")
	<-large.over
	_ = large.cmd.Wait()
	topOnce(t, ctx, n)
}

// topOnce: where there is no terminal it prints what there is, once.
func topOnce(t *testing.T, ctx context.Context, n *dev.Network) {
	t.Helper()
	out, talk, code, err := n.CLI(ctx, "provider-1", nil, "top")
	if err != nil || code != 0 || !strings.Contains(string(out), "COMPLETED") || strings.Contains(string(out), "\x1b") || strings.Contains(string(out), "quit") {
		t.Errorf("%d, %v:\n%s%s", code, err, out, talk)
	}
	out, talk, code, err = n.CLI(ctx, "consumer-1", nil, "top", "--output", "json")
	var got struct {
		Node struct {
			Role      string `json:"role"`
			Processes []struct {
				Name      string `json:"name"`
				Memory    uint64 `json:"memory"`
				StartedAt string `json:"started_at"`
			} `json:"processes"`
		} `json:"node"`
		Tasks []any `json:"tasks"`
	}
	if jerr := json.Unmarshal(out, &got); err != nil || code != 0 || jerr != nil || got.Node.Role != "consumer" || len(got.Tasks) != 3 {
		t.Fatalf("%d, %v, %v:\n%s%s", code, err, jerr, out, talk)
	}
	for _, p := range got.Node.Processes {
		if p.StartedAt == "" || p.Memory == 0 {
			t.Errorf("of %s it is not known what it uses: %+v", p.Name, p)
		}
	}
}
