package page

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Config says where a page is run.
type Config struct {
	Dir  string        // where its terminals begin
	Env  []string      // of all commands. HOME must be this session's alone: what still runs in the end is found by it
	Wait time.Duration // how long one block may take
	// Rewrite changes commands before they are run, where a test must not do what a reader does; nil: they are as they are.
	Rewrite func(commands string) string
}

// Session is the terminals of one page.
type Session struct {
	Config
	state     string
	terminals map[string]*terminal
}

// terminal is a shell that stays from block to block, so that folders, variables and jobs do.
type terminal struct {
	shell   *exec.Cmd
	in      *os.File
	exited  chan struct{}
	output  string // the file of all that was printed
	blocks  int
	running string // the file that is there when the command of a terminal's last block has ended
}

// New is a session without a terminal yet. When the test ends, or its process does, all that the session started is killed.
func New(t testing.TB, c Config) *Session {
	t.Helper()
	s := &Session{Config: c, state: t.TempDir(), terminals: map[string]*terminal{}}
	if s.home() == "" {
		t.Fatal("the environment has no HOME")
	}
	kill, err := reaper(s.home())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill()
		for _, term := range s.terminals {
			term.in.Close()
			<-term.exited
		}
	})
	return s
}

// Run runs all blocks; the first that fails ends the test, with what it printed.
func (s *Session) Run(t testing.TB, blocks []Block) {
	t.Helper()
	for _, b := range blocks {
		begin := time.Now()
		if b.Needs != "" {
			if err := s.parses(t.Context(), b); err != nil {
				t.Fatalf("%v: %v", b, err)
			}
			t.Logf("left out: %v needs %s", b, Needs[b.Needs])
			continue
		}
		if out, err := s.block(t.Context(), b); err != nil {
			t.Fatalf("%v: %v\n%s\nprinted\n%s%s", b, err, b.Commands, tail(out), s.others(b.Terminal))
		}
		t.Logf("%v: %v", b, time.Since(begin).Round(100*time.Millisecond))
	}
}

// End interrupts what stays in terminals, as who closes them does, and says what is running still: a page leaves nothing.
func (s *Session) End(ctx context.Context) error {
	for name, term := range s.terminals {
		if name == "" {
			continue
		}
		if err := s.interrupt(ctx, term); err != nil {
			return fmt.Errorf("terminal %s: %w", name, err)
		}
	}
	var left []string
	err := s.until(ctx, func() bool {
		left = s.running()
		return len(left) == 0
	})
	if err != nil {
		return fmt.Errorf("after the page there runs still: %s", strings.Join(left, "; "))
	}
	return nil
}

func (s *Session) block(ctx context.Context, b Block) (string, error) {
	term, err := s.terminal(b.Terminal)
	if err != nil {
		return "", err
	}
	if term.running != "" {
		if err := s.interrupt(ctx, term); err != nil {
			return term.printed(0), err
		}
	}
	from := term.size()
	script := filepath.Join(s.state, fmt.Sprintf("%s.%d.sh", b.Terminal, term.blocks))
	done := script + ".done"
	term.blocks++
	commands := b.Commands
	if s.Rewrite != nil {
		commands = s.Rewrite(commands)
	}
	if err := os.WriteFile(script, []byte(commands), 0o600); err != nil {
		return "", err
	}
	line := fmt.Sprintf(". %s </dev/null; echo >%s\n", script, done)
	if b.Terminal != "" {
		// Ctrl-C ends the command and not the shell, and what its exit code is then is its own affair.
		line = fmt.Sprintf("trap : INT; set +e; . %s </dev/null; echo >%s\n", script, done)
		term.running = done
	}
	if _, err := term.in.WriteString(line); err != nil {
		return term.printed(from), err
	}
	ended := func() bool { return exists(done) || closed(term.exited) }
	if b.Terminal == "" {
		if err := s.until(ctx, ended); err != nil {
			return term.printed(from), err
		}
		if !exists(done) {
			return term.printed(from), fmt.Errorf("a command failed: %v", term.shell.ProcessState)
		}
	} else {
		shown := func() bool { _, missing := b.missing(term.printed(from)); return !missing }
		if err := s.until(ctx, func() bool { return shown() || ended() }); err != nil && !errors.Is(err, errTooLong) {
			return term.printed(from), err
		}
		if ended() && !shown() {
			return term.printed(from), errors.New("the command did not stay")
		}
	}
	out := term.printed(from)
	if line, is := b.missing(out); is {
		return out, fmt.Errorf("it does not print %q", line)
	}
	return out, nil
}

func (s *Session) terminal(name string) (*terminal, error) {
	if term := s.terminals[name]; term != nil {
		return term, nil
	}
	term := &terminal{exited: make(chan struct{}), output: filepath.Join(s.state, "output."+name)}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out, err := os.OpenFile(term.output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	term.in = w
	term.shell = exec.Command("bash", "--noprofile", "--norc", "-euo", "pipefail")
	term.shell.Dir, term.shell.Env = s.Dir, s.Env
	term.shell.Stdin, term.shell.Stdout, term.shell.Stderr = r, out, out
	term.shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := term.shell.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = term.shell.Wait()
		close(term.exited)
	}()
	s.terminals[name] = term
	return term, nil
}

// interrupt is Ctrl-C in a terminal: all that runs in it is told, and it is waited for.
func (s *Session) interrupt(ctx context.Context, term *terminal) error {
	if term.running == "" || closed(term.exited) {
		return nil
	}
	if !exists(term.running) {
		if err := syscall.Kill(-term.shell.Process.Pid, syscall.SIGINT); err != nil {
			return err
		}
	}
	if err := s.until(ctx, func() bool { return exists(term.running) || closed(term.exited) }); err != nil {
		return fmt.Errorf("the command goes on after Ctrl-C: %w", err)
	}
	term.running = ""
	return nil
}

// parses tells whether a shell understands commands that are not run.
func (s *Session) parses(ctx context.Context, b Block) error {
	cmd := exec.CommandContext(ctx, "bash", "-n")
	cmd.Stdin = strings.NewReader(b.Commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("no shell understands it: %w, %s", err, out)
	}
	return nil
}

var errTooLong = errors.New("it takes too long")

// until waits for a condition, s.Wait at most.
func (s *Session) until(ctx context.Context, is func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.Wait, fmt.Errorf("%w: more than %v", errTooLong, s.Wait))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// home is the line by which processes of this session are known.
func (s *Session) home() string {
	for i := len(s.Env) - 1; i >= 0; i-- {
		if strings.HasPrefix(s.Env[i], "HOME=") {
			return s.Env[i]
		}
	}
	return ""
}

// processes calls do for each process of this session but its terminals' shells.
func (s *Session) processes(do func(pid int, command string)) {
	home := []byte(s.home())
	shells := map[int]bool{}
	for _, term := range s.terminals {
		shells[term.shell.Process.Pid] = true
	}
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range all {
		env, err := os.ReadFile(path)
		if err != nil || len(home) == 0 {
			continue // it has just ended, or is another user's
		}
		mine := false
		for line := range bytes.SplitSeq(env, []byte{0}) {
			mine = mine || bytes.Equal(line, home)
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err != nil || !mine || shells[pid] {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if len(command) > 0 { // else it has ended and is not waited for yet
			do(pid, strings.ReplaceAll(strings.TrimRight(string(command), "\x00"), "\x00", " "))
		}
	}
}

func (s *Session) running() (left []string) {
	s.processes(func(_ int, command string) { left = append(left, command) })
	return left
}

// others is what the other terminals printed last, for who looks why a page failed.
func (s *Session) others(but string) string {
	var b strings.Builder
	for name, term := range s.terminals {
		if name != but {
			fmt.Fprintf(&b, "\nterminal %q printed\n%s", name, tail(term.printed(0)))
		}
	}
	return b.String()
}

func (t *terminal) size() int64 {
	info, err := os.Stat(t.output)
	if err != nil {
		return 0
	}
	return info.Size()
}

func (t *terminal) printed(from int64) string {
	out, err := os.ReadFile(t.output)
	if err != nil || int64(len(out)) < from {
		return ""
	}
	return string(out[from:])
}

func tail(out string) string {
	const most = 8000
	if len(out) > most {
		out = "…" + out[len(out)-most:]
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
