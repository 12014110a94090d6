package clitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shallot-net/shallot/kit/fence"
	"github.com/shallot-net/shallot/kit/home"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// observe writes down what the process sees of networks, for Observed.
func observe(h home.Home, name string) error {
	f, err := fence.Observe()
	if err != nil {
		return nil //nolint:nilerr // there are fences on Linux only
	}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return home.WriteFile(filepath.Join(h.Dir, "observed."+name), data, 0o600)
}

// Observed is what a stand-in saw of networks at its last start.
func Observed(dir, process string) (f fence.Fence, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "observed."+process))
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	return f, err
}

// mode is what the stand-in of the broker was started in.
func mode(h home.Home) string {
	if data, err := os.ReadFile(filepath.Join(h.Dir, "address")); err == nil && strings.HasPrefix(string(data), "/onion3/") {
		return "anonymous"
	}
	if exists(h, "consumer.anonymous") {
		return "anonymous"
	}
	return "open"
}

// reachTor waits for tor's socket, as the processes do that need it.
func reachTor(ctx context.Context, endpoint string) error {
	return until(ctx, func() error {
		c, err := net.Dial("unix", strings.TrimPrefix(endpoint, "unix:"))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// until tries until it works.
func until(ctx context.Context, try func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// fenceOf and torOf are what a node service says of an anonymous node.
func fenceOf(h home.Home) string {
	f, err := Observed(h.Dir, "broker")
	switch {
	case mode(h) != "anonymous" || err != nil:
		return ""
	case f.Enclosed:
		return "enclosed"
	}
	return "none"
}

func torOf(h home.Home) *nodev1.Tor {
	if mode(h) != "anonymous" {
		return nil
	}
	return &nodev1.Tor{State: "online", Progress: 100}
}

func anonymousBroker(ctx context.Context, h home.Home, cfg settings) error {
	if len(cfg.ListenAddr) != 0 {
		return fmt.Errorf("--listen-addrs is %q in anonymous mode", cfg.ListenAddr)
	}
	if err := reachTor(ctx, cfg.Onion.Socks); err != nil {
		return err
	}
	if f, err := fence.Observe(); err == nil && !f.Enclosed && !cfg.Unfenced {
		return fmt.Errorf("there are network interfaces: %s", strings.Join(f.Interfaces, ", "))
	}
	if !cfg.Onion.Service {
		return os.WriteFile(filepath.Join(h.Dir, "consumer.anonymous"), nil, 0o600)
	}
	return os.WriteFile(filepath.Join(h.Dir, "address"), []byte("/onion3/"+strings.Repeat("a", 56)+":4001"), 0o600)
}

// controls is what shallot-onion does at first.
func controls(ctx context.Context, control, cookie string) error {
	if err := reachTor(ctx, control); err != nil || cookie == "" {
		return err
	}
	return until(ctx, func() error { _, err := os.Stat(cookie); return err })
}

// torMain stands for tor: it says its version, or opens the sockets of its configuration and says that it has come into a network.
func torMain(args []string) {
	if err := tor(args); err != nil {
		fmt.Println("Nov 26 12:00:00.000 [err]", err)
		os.Exit(1)
	}
}

func tor(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "--version":
		fmt.Println("Tor version 0.4.9.11.")
		return nil
	case len(args) == 1 && args[0] == "--list-modules":
		fmt.Println("relay: yes\ndirauth: yes\ndircache: yes\npow: yes")
		return nil
	case len(args) < 2 || args[0] != "-f":
		return fmt.Errorf("arguments are %q", args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := readTorrc(args[1])
	if err != nil {
		return err
	}
	cookie := filepath.Join(config["DataDirectory"], "control_auth_cookie")
	if err := os.WriteFile(cookie, make([]byte, 32), 0o600); err != nil {
		return err
	}
	for _, option := range []string{"ControlPort", "SocksPort"} {
		path, _, _ := strings.Cut(strings.TrimPrefix(config[option], "unix:"), " ")
		path = strings.Trim(path, `"`)
		_ = os.Remove(path)
		l, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		defer l.Close()
	}
	say := func(line string) { fmt.Println("Nov 26 12:00:00.000 " + line) }
	say("[notice] Bootstrapped 0% (starting): Starting")
	say("[notice] Bootstrapped 45% (requesting_descriptors): Asking for relay descriptors")
	if _, err := os.Stat(filepath.Join(filepath.Dir(filepath.Dir(args[1])), "hang.tor")); err == nil {
		say("[warn] Problem bootstrapping. Stuck at 45% (requesting_descriptors): Asking for relay descriptors. (Connection refused; CONNECTREFUSED; count 10; recommendation warn; host 0A at 192.0.2.77:9001)")
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	} else {
		say("[notice] Bootstrapped 100% (done): Done")
	}
	<-ctx.Done()
	return nil
}

func readTorrc(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if option, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(option, "#") {
			config[option] = strings.Trim(value, `"`)
		}
	}
	return config, nil
}
