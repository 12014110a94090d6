package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/clitest"
	"github.com/shallot-net/shallot/kit/home"
)

func TestMain(m *testing.M) {
	code := m.Run()
	clitest.Clean()
	os.Exit(code)
}

// buffer can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// eventually waits until ok says true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// running is a network of stand-ins that runs in this process.
type running struct {
	dir   string
	bin   string
	out   *buffer
	ready chan []ReadyNode
	stop  context.CancelFunc
	ended chan error
}

func startNetwork(t *testing.T, providers, consumers int, prepare ...func(dir string) string) *running {
	t.Helper()
	return launch(t, func(r *running, cfg *NetworkConfig) {
		cfg.Providers, cfg.Consumers = providers, consumers
		for _, p := range prepare {
			r.dir = p(r.dir)
		}
	})
}

// launch runs the network that configure describes.
func launch(t *testing.T, configure func(*running, *NetworkConfig)) *running {
	t.Helper()
	r := &running{dir: t.TempDir(), bin: clitest.Install(t), out: &buffer{}, ready: make(chan []ReadyNode, 1), ended: make(chan error, 1)}
	cfg := NetworkConfig{Finder: Finder{Dirs: []string{r.bin}}, Print: NewPrinter(r.out), Ready: func(n []ReadyNode) { r.ready <- n }}
	configure(r, &cfg)
	cfg.Dir = r.dir
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go func() { r.ended <- RunNetwork(ctx, cfg) }()
	t.Cleanup(func() {
		r.stop()
		if err := <-r.ended; err != nil {
			t.Errorf("the network ended with %v", err)
		}
		if left := processesUnder(t, r.dir); len(left) > 0 {
			t.Errorf("still running: %v", left)
		}
		if t.Failed() {
			t.Logf("it said:\n%s", r.out)
		}
	})
	return r
}

func (r *running) awaitReady(t *testing.T) []ReadyNode {
	t.Helper()
	select {
	case n := <-r.ready:
		return n
	case err := <-r.ended:
		r.ended <- err
		t.Fatalf("it ended: %v\n%s", err, r.out)
	case <-time.After(time.Minute):
		t.Fatalf("it was not ready in time:\n%s", r.out)
	}
	return nil
}

func (r *running) home(t *testing.T, node string) home.Home {
	t.Helper()
	h, err := home.Find(filepath.Join(r.dir, node))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// processesUnder finds processes by a home on their command line, as an outsider would, and tors by their configuration in it.
func processesUnder(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		args := strings.Split(string(data), "\x00")
		if len(args) > 2 && (args[1] == "--home" || args[1] == "-f") && strings.HasPrefix(args[2], dir) {
			found = append(found, fmt.Sprintf("%s %s %s", filepath.Base(filepath.Dir(f)), filepath.Base(args[0]), filepath.Base(args[2])))
		}
	}
	return found
}

// pidOf is a process's id as the supervisor tells others.
func pidOf(t *testing.T, h home.Home, process string) int {
	t.Helper()
	s, err := ReadState(h)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Processes {
		if p.Name == process {
			return p.PID
		}
	}
	t.Fatalf("no process %s in %+v", process, s)
	return 0
}

func zombieFree(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || !strings.Contains(string(data), ") Z ")
}
