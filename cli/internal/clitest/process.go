package clitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/kit/rpc"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// Main is a stand-in for the process of a node that it is called after, shallot-PROCESS, or for tor. A file named after a process in
// its home changes what it does: crash.PROCESS has it die at once, deaf.PROCESS has it ignore SIGTERM, hang.tor has tor not get into its network.
func Main() {
	name := strings.TrimPrefix(filepath.Base(os.Args[0]), "shallot-")
	if name == "tor" {
		torMain(os.Args[1:])
		return
	}
	lifecycle.Main(name, func(ctx context.Context, args []string) error { return process(ctx, name, args) })
}

// built is a directory with the real command and the stand-in. They are built without the race detector, which would
// make a dozen processes slow to start: what they are made of is tested with it elsewhere.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "shallot-cli-test")
	if err != nil {
		return "", err
	}
	builtIn = dir
	const module = "github.com/shallot-net/shallot/cli/"
	cmd := exec.Command("go", "build", "-o", dir, module+"cmd/shallot", module+"internal/clitest/standin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build the stand-ins: %w\n%s", err, out)
	}
	return dir, nil
})

var builtIn string

// Clean removes what Install built; TestMain calls it at the end.
func Clean() {
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
}

// Install puts the command, and stand-ins under the names of all processes and of tor, into a new directory and returns it.
func Install(t testing.TB) string {
	t.Helper()
	from, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link := func(file, name string) {
		if err := os.Link(filepath.Join(from, file), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("shallot", "shallot")
	for _, name := range append(processNames("provider"), "executor-wasm", "onion") {
		link("standin", "shallot-"+name)
	}
	link("standin", "tor")
	return dir
}

func processNames(role string) []string {
	if role == "provider" {
		return []string{"broker", "discovery", "metric", "task", "node", "gateway"}
	}
	return []string{"broker", "task", "node", "gateway"}
}

type settings struct {
	config.Common
	Role       string   `koanf:"role" help:"provider or consumer"`
	Bootstrap  []string `koanf:"bootstrap" help:"addresses to join through"`
	ListenAddr []string `koanf:"listen_addrs" help:"swarm addresses"`
	Routing    string   `koanf:"routing" help:"role in the routing table"`
	HTTP       string   `koanf:"http" help:"where the gateway listens"`
	TokenFile  string   `koanf:"token_file" help:"what opens the gateway"`
	Siblings   string   `koanf:"siblings" help:"the nodes beside this one"`
	Mode       string   `koanf:"mode" help:"open or anonymous"`
	Unfenced   bool     `koanf:"unfenced" help:"a network interface is no reason to end"`
	Onion      struct {
		Socks   string `koanf:"socks" help:"tor's socket for connections"`
		Service bool   `koanf:"service" help:"others can reach this node"`
	} `koanf:"onion"`
	Control    string `koanf:"control" help:"tor's socket that controls it"`
	CookieFile string `koanf:"cookie_file" help:"what opens that"`
	Provider   struct {
		Executors []string `koanf:"executors" help:"the operator's own"`
	} `koanf:"provider"`
}

func process(ctx context.Context, name string, args []string) error {
	var cfg settings
	if _, err := config.Load(name, &cfg, args); err != nil {
		return err
	}
	h, err := home.Open(cfg.Home)
	if err != nil {
		return err
	}
	if exists(h, "crash."+name) {
		return fmt.Errorf("a file says that it must die")
	}
	if exists(h, "deaf."+name) {
		signal.Ignore(syscall.SIGTERM)
	}
	release, err := h.Lock(name)
	if err != nil {
		return err
	}
	defer release()
	if name == "gateway" {
		return serveHTTP(ctx, h, cfg)
	}
	s, err := rpc.NewServer(rpc.ServerConfig{Process: name, Listen: cfg.Listen})
	if err != nil {
		return err
	}
	if err := observe(h, name); err != nil {
		return err
	}
	switch name {
	case "onion":
		if err := controls(ctx, cfg.Control, cfg.CookieFile); err != nil {
			return err
		}
	case "broker":
		if cfg.Mode == "anonymous" {
			if err := anonymousBroker(ctx, h, cfg); err != nil {
				return err
			}
			break
		}
		if len(cfg.ListenAddr) != 1 {
			return fmt.Errorf("--listen-addrs is %q", cfg.ListenAddr)
		}
		if err := os.WriteFile(filepath.Join(h.Dir, "address"), []byte(cfg.ListenAddr[0]), 0o600); err != nil {
			return err
		}
	case "discovery":
		if err := join(h, cfg.Bootstrap); err != nil {
			return err
		}
	case "node":
		if cfg.Role == "consumer" {
			if err := join(h, cfg.Bootstrap); err != nil {
				return err
			}
		}
		standIn(h, cfg.Role).Register(s)
	}
	s.SetServing(true)
	return s.Serve(ctx)
}

func exists(h home.Home, file string) bool {
	_, err := os.Stat(filepath.Join(h.Dir, file))
	return err == nil
}

func peerID(h home.Home) string { return "peer-" + filepath.Base(h.Dir) }

// join notes in the network's directory that this node is known to all. Only the first needs no address to join through.
func join(h home.Home, bootstrap []string) error {
	first := filepath.Base(h.Dir) == "provider-1"
	if strings.HasPrefix(filepath.Base(h.Dir), "provider-") || strings.HasPrefix(filepath.Base(h.Dir), "consumer-") {
		if !first && (len(bootstrap) != 1 || !strings.HasSuffix(bootstrap[0], "/p2p/peer-provider-1")) {
			return fmt.Errorf("cannot join through %q", bootstrap)
		}
	}
	return os.WriteFile(filepath.Join(filepath.Dir(h.Dir), peerID(h)+".joined"), nil, 0o600)
}

// standIn is a node service that is ready when the node's other sockets answer.
func standIn(h home.Home, role string) *Node {
	n := NewNode()
	n.Info = func() *nodev1.Node {
		info := &nodev1.Node{PeerId: peerID(h), Role: role, Mode: mode(h), Fence: fenceOf(h), Tor: torOf(h), Online: true, Ready: true, Version: "dev", ProvidersKnown: uint32(len(n.Peers()))} //nolint:gosec // few
		if info.Mode == "anonymous" {
			info.Alias = "alias-of-" + peerID(h)
		}
		if addr, err := os.ReadFile(filepath.Join(h.Dir, "address")); err == nil {
			info.Addresses = []string{string(addr) + "/p2p/" + peerID(h)}
		}
		for _, p := range processNames(role) {
			state := "serving"
			if c, err := net.Dial("unix", h.Socket(p)); err == nil {
				_ = c.Close()
			} else if p != "gateway" {
				state, info.Ready = "unreachable", false
			}
			info.Processes = append(info.Processes, &nodev1.Process{Name: p, State: state})
		}
		return info
	}
	n.Peers = func() []*discoveryv1.Peer {
		var out []*discoveryv1.Peer
		files, _ := filepath.Glob(filepath.Join(filepath.Dir(h.Dir), "peer-provider-*.joined"))
		slices.Sort(files)
		for _, f := range files {
			if id := strings.TrimSuffix(filepath.Base(f), ".joined"); id != peerID(h) {
				out = append(out, &discoveryv1.Peer{PeerId: id, Role: "provider", State: "available"})
			}
		}
		return out
	}
	return n
}

func serveHTTP(ctx context.Context, h home.Home, cfg settings) error {
	l, err := net.Listen("tcp4", cfg.HTTP)
	if err != nil {
		return err
	}
	token := cfg.TokenFile
	if token == "" {
		token = filepath.Join(h.State("gateway"), "token")
	}
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		return err
	}
	data, err := json.Marshal(map[string]string{"url": "http://" + l.Addr().String(), "token_file": token})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(h.Dir, "run", "gateway.json"), data, 0o600); err != nil {
		return err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"code": "a-code", "expires_in": "1m0s"}`)
	}), ReadHeaderTimeout: time.Second}
	go func() {
		<-ctx.Done()
		_ = s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
