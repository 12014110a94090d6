package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
	"github.com/shallot-net/shallot/kit/rpc"
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
	case "settings": // a process that reads its settings first, as all do
		lifecycle.Main("x", func(_ context.Context, args []string) error {
			if _, err := config.Load("x", &struct{ config.Common }{}, args); err != nil {
				return err
			}
			return errors.New("it ran, and was only to be asked")
		})
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
	cmd, stderr = play(t, "fail", "SHALLOT_X_LOG_FORMAT=json")
	var line struct{ Level, Process, Error string }
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || json.Unmarshal([]byte(stderr.String()), &line) != nil || line.Process != "x" || line.Error != "one; two" {
		t.Errorf("%v, %q", err, stderr)
	}
	cmd, stderr = play(t, "help")
	if err := cmd.Run(); err != nil || stderr.String() != "" {
		t.Errorf("%v, %q", err, stderr)
	}
}

func TestMainAsksForHealth(t *testing.T) {
	dir := t.TempDir()
	h, err := home.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ca := mtlstest.NewCA(t)
	own := ca.Dir("x")
	for name, c := range map[string]struct {
		server rpc.ServerConfig
		env    []string
	}{
		"on its socket":    {server: rpc.ServerConfig{Listen: h.Endpoint("x")}},
		"over TCP and TLS": {server: rpc.ServerConfig{Listen: "127.0.0.1:0", TLS: ca.Open(own, mtls.Options{})}, env: []string{"SHALLOT_X_TLS_DIR=" + own}},
	} {
		t.Run(name, func(t *testing.T) {
			ask := func(listen string) (int, string) {
				cmd, stderr := play(t, "settings", append(c.env, "SHALLOT_X_LISTEN="+listen)...)
				cmd.Args = append(cmd.Args, "--home", dir, "--health")
				_ = cmd.Run()
				return cmd.ProcessState.ExitCode(), stderr.String()
			}
			c.server.Process = "x"
			server, err := rpc.NewServer(c.server)
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Listen(t.Context()); err != nil {
				t.Fatal(err)
			}
			listen := c.server.Listen
			if strings.HasSuffix(listen, ":0") {
				_, port, _ := net.SplitHostPort(server.Addr().String())
				listen = ":" + port // as in a container: on all interfaces, and asked on loopback
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- server.Serve(ctx) }()
			if code, said := ask(listen); code != 1 || !strings.Contains(said, "x runs and is not ready") {
				t.Errorf("before it is ready: %d, %q", code, said)
			}
			server.SetServing(true)
			if code, said := ask(listen); code != 0 || said != "" {
				t.Errorf("ready: %d, %q", code, said)
			}
			if code, said := ask("unix:" + filepath.Join(dir, "nobody.sock")); code != 1 || said == "" {
				t.Errorf("nobody listens: %d, %q", code, said)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
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
