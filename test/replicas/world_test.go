// Package replicas runs one provider and one consumer whose services are several processes each, on this machine, and kills them under load.
package replicas

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
	"github.com/shallot-net/shallot/kit/pgtest"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
)

const port = "7001"

// world is both nodes.
type world struct {
	t     *testing.T
	bin   string
	dir   string
	hosts string // the file
	net   string // the first three bytes of the addresses of this test
	creds *mtls.Credentials
	ca    *mtlstest.CA
	logs  sync.Mutex

	server *pgtest.Server // of the provider

	all       []*process
	providers []nodev1.NodeServiceClient // by replica of the provider's node
	consumers []nodev1.NodeServiceClient
}

// numbers are the last bytes of the addresses of each name: one for each replica that there may be.
var numbers = map[string][]int{"task": {11, 12}, "discovery": {21, 22}, "metric": {31, 32}, "node": {41, 42}, "consumer": {51, 52}}

// newWorld starts everything. Several addresses get one name by a file of hosts that only these processes see.
func newWorld(t *testing.T) *world {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "rep-") // sockets need short paths
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, bin: bin, dir: dir, ca: mtlstest.NewCA(t), net: fmt.Sprintf("127.%d.%d.", 2+rand.IntN(250), 1+rand.IntN(250))}
	t.Cleanup(w.remove)
	w.creds = w.ca.Credentials("cli/test")
	w.writeHosts()
	mayName(t, w.hosts)
	w.server = pgtest.Start(t)
	store := []string{"--store", w.server.URL(w.server.Database(t)), "--store_password_file", w.server.PasswordFile}

	provider, consumer, addresses := filepath.Join(dir, "p"), filepath.Join(dir, "c"), filepath.Join(dir, "addresses")
	for _, home := range []string{provider, consumer} {
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.add(&process{kind: "broker", name: "provider's broker", home: provider})
	for i := range numbers["task"] {
		w.replica(provider, "task", "task", i, append([]string{"--role", "provider", "--provider.slots", "4", "--provider.puzzle.mode", "off"}, store...)...)
		w.replica(provider, "discovery", "discovery", i, store...)
		w.replica(provider, "metric", "metric", i, store...)
		w.replica(provider, "node", "node", i, "--role", "provider", "--address_file", addresses,
			"--task", "task.test:"+port, "--discovery", "discovery.test:"+port, "--metric", "metric.test:"+port)
	}
	w.startAll()
	begun := len(w.all)
	w.add(&process{kind: "broker", name: "consumer's broker", home: consumer})
	w.add(&process{kind: "task", name: "consumer's task", home: consumer, args: []string{"--role", "consumer"}})
	for i := range numbers["consumer"] {
		w.replica(consumer, "node", "consumer", i, "--role", "consumer", "--bootstrap_file", addresses)
	}
	w.startFrom(begun)
	w.providers, w.consumers = w.clients("node"), w.clients("consumer")
	return w
}

func (w *world) writeHosts() {
	lines := []string{"127.0.0.1 localhost"}
	for name, list := range numbers {
		for _, n := range list {
			lines = append(lines, fmt.Sprintf("%s%d %s.test", w.net, n, name))
		}
	}
	w.hosts = filepath.Join(w.dir, "hosts")
	if err := os.WriteFile(w.hosts, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// mayName leaves the test out where a process cannot be given names of its own.
func mayName(t *testing.T, hosts string) {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", `mount --bind "$0" /etc/hosts`, hosts)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if id := os.Getuid(); id != 0 {
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if out, err := c.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no mount namespace: %v\n%s", err, out)
		}
		t.Skipf("left out: a process cannot have a file of hosts of its own here: %v", err)
	}
}

func (w *world) address(name string, i int) string {
	return fmt.Sprintf("%s%d:%s", w.net, numbers[name][i], port)
}

func (w *world) replica(home, kind, name string, i int, args ...string) {
	listen := w.address(name, i)
	credentials := filepath.Join(w.dir, fmt.Sprint(name, i))
	if err := os.Mkdir(credentials, 0o700); err != nil {
		w.t.Fatal(err)
	}
	w.ca.Write(credentials, kind, time.Hour)
	w.add(&process{kind: kind, name: fmt.Sprintf("%s %d", name, i+1), home: home, listen: listen, args: append([]string{"--listen", listen, "--tls.dir", credentials}, args...)})
}

func (w *world) add(p *process) {
	p.t, p.w = w.t, w
	w.all = append(w.all, p)
}

func (w *world) startAll() { w.startFrom(0) }

func (w *world) startFrom(n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 90*time.Second)
	defer cancel()
	for _, p := range w.all[n:] {
		p.start()
	}
	for _, p := range w.all[n:] {
		if !p.ready(ctx) {
			w.t.Fatalf("%s did not start", p.name)
		}
	}
}

func (w *world) clients(name string) (out []nodev1.NodeServiceClient) {
	for i := range numbers[name] {
		conn, err := rpc.Dial(w.address(name, i), rpc.ClientConfig{Peer: "node", TLS: w.creds, Options: []grpc.DialOption{grpc.WithDisableHealthCheck()}})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = conn.Close() })
		out = append(out, nodev1.NewNodeServiceClient(conn))
	}
	return out
}

// remove ends all processes, and shows what they have said where something went wrong.
func (w *world) remove() {
	for _, p := range w.all {
		p.kill()
	}
	w.logs.Lock()
	defer w.logs.Unlock()
	for _, p := range w.all {
		for _, line := range strings.Split(p.out.String(), "\n") {
			if w.t.Failed() || strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, "panic") {
				w.t.Logf("%s: %s", p.name, line)
			}
		}
	}
	_ = os.RemoveAll(w.dir)
}
