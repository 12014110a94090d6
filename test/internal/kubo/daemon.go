package kubo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = time.Minute
	callTimeout  = 3 * time.Minute
	stopTimeout  = 15 * time.Second
)

// Daemon is a running Kubo.
type Daemon struct {
	program, repo string
	cmd           *exec.Cmd
	exit          chan struct{}
	err           error
	said          *bytes.Buffer // read only after exit
}

// Start makes a repository in dir, in Kubo's default layout, and starts a daemon on it that listens on 127.0.0.1 alone.
func Start(ctx context.Context, program, dir string) (*Daemon, error) {
	d := &Daemon{program: program, repo: dir, exit: make(chan struct{}), said: &bytes.Buffer{}}
	if _, err := d.Run(ctx, nil, "init", "--empty-repo", "--profile=test"); err != nil {
		return nil, err
	}
	if err := d.isolate(); err != nil {
		return nil, fmt.Errorf("configure Kubo: %w", err)
	}
	d.cmd = exec.Command(program, "daemon")
	d.cmd.Env = d.env()
	d.cmd.Stdout, d.cmd.Stderr = d.said, d.said
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Kubo: %w", err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exit)
	}()
	if err := d.ready(ctx); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// isolate adds to the profile "test", which empties the bootstrap list and switches mDNS, AutoTLS and AutoConf off, what else would
// look for others.
func (d *Daemon) isolate() error {
	path := filepath.Join(d.repo, "config")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var cfg map[string]any
	if err := json.Unmarshal(b, &cfg); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	set := func(value any, keys ...string) {
		at := cfg
		for _, k := range keys[:len(keys)-1] {
			next, ok := at[k].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[k] = next
			}
			at = next
		}
		at[keys[len(keys)-1]] = value
	}
	set("none", "Routing", "Type")
	set(false, "Provide", "Enabled")
	set(false, "HTTPRetrieval", "Enabled")
	set(false, "Swarm", "RelayClient", "Enabled")
	set(false, "Swarm", "RelayService", "Enabled")
	set(false, "Swarm", "EnableHolePunching")
	set("disabled", "AutoNAT", "ServiceMode")
	set(map[string]any{"TCP": true, "QUIC": false, "WebTransport": false, "WebRTCDirect": false, "Websocket": false, "Relay": false}, "Swarm", "Transports", "Network")
	set(true, "Plugins", "Plugins", "telemetry", "Disabled")
	if b, err = json.MarshalIndent(cfg, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

func (d *Daemon) env() []string {
	return append(os.Environ(), "IPFS_PATH="+d.repo, "IPFS_TELEMETRY=off", "DO_NOT_TRACK=1")
}

// ready waits until the daemon's API answers.
func (d *Daemon) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-d.exit:
			return fmt.Errorf("the daemon of Kubo ended before it was ready: %w\n%s", d.err, tail(d.said.Bytes()))
		case <-ctx.Done():
			return fmt.Errorf("the daemon of Kubo is not ready: %w", ctx.Err())
		case <-tick.C:
		}
		if d.answers(ctx) {
			return nil
		}
	}
}

func (d *Daemon) answers(ctx context.Context) bool {
	addr, err := os.ReadFile(filepath.Join(d.repo, "api"))
	if err != nil {
		return false
	}
	parts := strings.Split(strings.TrimSpace(string(addr)), "/") // /ip4/127.0.0.1/tcp/PORT
	if len(parts) != 5 {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+parts[2]+":"+parts[4]+"/api/v0/id", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Stop interrupts the daemon and returns when it has ended.
func (d *Daemon) Stop() error {
	select {
	case <-d.exit:
		return nil
	default:
	}
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-d.exit:
		return nil
	case <-timeout.C:
		_ = d.cmd.Process.Kill()
		<-d.exit
		return fmt.Errorf("the daemon of Kubo did not stop within %v of an interrupt", stopTimeout)
	}
}

// Run runs the command ipfs, for some minutes at most, and returns what it printed, without spaces around it.
func (d *Daemon) Run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out, talk bytes.Buffer
	cmd := exec.CommandContext(ctx, d.program, args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = d.env(), stdin, &out, &talk
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("ipfs %s: %w\n%s", strings.Join(args, " "), err, tail(talk.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Addresses are where the daemon listens, each with its peer id.
func (d *Daemon) Addresses(ctx context.Context) ([]string, error) {
	out, err := d.Run(ctx, nil, "id", "-f", "<addrs>")
	return strings.Fields(out), err
}
