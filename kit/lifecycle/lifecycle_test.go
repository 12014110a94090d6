package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/lifecycle"
)

func wait(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestRun(t *testing.T) {
	boom := errors.New("boom")
	var cause error
	err := lifecycle.Run(t.Context(), func(ctx context.Context) error {
		<-ctx.Done()
		cause = context.Cause(ctx)
		return ctx.Err()
	}, func(context.Context) error { return boom }, func(context.Context) error { return nil })
	if !errors.Is(err, boom) || !errors.Is(cause, boom) {
		t.Errorf("got %v, cause %v", err, cause)
	}
	err = lifecycle.Run(t.Context(), wait, func(context.Context) error { panic("ouch") })
	if err == nil || !strings.Contains(err.Error(), "ouch") || !strings.Contains(err.Error(), "lifecycle_test.go") {
		t.Errorf("got %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := lifecycle.Run(ended, wait, wait); err != nil {
		t.Errorf("an ordinary end gives %v", err)
	}
	if err := lifecycle.Run(ended, wait, func(ctx context.Context) error { <-ctx.Done(); return boom }); !errors.Is(err, boom) {
		t.Errorf("a failure while ending gives %v", err)
	}
}

// TestMain plays the process when it is started again as one.
func TestMain(m *testing.M) {
	switch os.Getenv("PLAY") {
	case "":
		os.Exit(m.Run())
	case "fail":
		lifecycle.Main("x", func(context.Context, []string) error { return errors.New("one\ntwo") })
	case "help":
		lifecycle.Main("x", func(context.Context, []string) error { return config.ErrHelp })
	case "wait":
		lifecycle.Main("x", func(ctx context.Context, _ []string) error {
			if debug.SetGCPercent(-1) != 400 || debug.SetMemoryLimit(-1) != 256<<20 || os.Getenv(lifecycle.ParentFD) != "" {
				return errors.New("not tuned")
			}
			_, _ = os.Stdout.WriteString("up\n")
			return wait(ctx)
		})
	}
}

func play(t *testing.T, what string, env ...string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append([]string{"PLAY=" + what}, env...)
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	return cmd, stderr
}

func TestMainExits(t *testing.T) {
	cmd, stderr := play(t, "fail")
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || stderr.String() != "shallot-x: one; two\n" {
		t.Errorf("%v, %q", err, stderr)
	}
	cmd, stderr = play(t, "help")
	if err := cmd.Run(); err != nil || stderr.String() != "" {
		t.Errorf("%v, %q", err, stderr)
	}
}

func up(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
}

func TestMainWritesAProfile(t *testing.T) {
	dir := t.TempDir()
	cmd, stderr := play(t, "wait", lifecycle.CPUProfile+"="+dir)
	up(t, cmd)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || stderr.String() != "" {
		t.Errorf("%v, %q", err, stderr)
	}
	name := filepath.Join(dir, fmt.Sprintf("x-%d.pprof", cmd.Process.Pid))
	if info, err := os.Stat(name); err != nil || info.Size() == 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	cmd, stderr = play(t, "wait", lifecycle.CPUProfile+"=/nowhere")
	up(t, cmd)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), lifecycle.CPUProfile) {
		t.Errorf("a profile that cannot be written: %v, %q", err, stderr)
	}
}

func TestMainEndsBySignalAndWithItsParent(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd, stderr := play(t, "wait")
		up(t, cmd)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || stderr.String() != "" {
			t.Errorf("%v: %v, %q", sig, err, stderr)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd, stderr := play(t, "wait", lifecycle.ParentFD+"=3")
	cmd.ExtraFiles = []*os.File{r}
	up(t, cmd)
	_ = w.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v, %q", err, stderr)
	}
}
