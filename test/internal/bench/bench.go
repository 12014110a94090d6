package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/measure"
)

// Config of a run.
type Config struct {
	Bin string // the folder of Shallot's binaries
	// Dir gets the homes of the nodes and everything else that is written, in a folder that is removed at the end. It should be on a
	// disk: on tmpfs a commit costs nothing.
	Dir  string
	Rows []string // of Rows; empty for all but those of Apart
	// Quick repeats little, for a smoke test.
	Quick bool
	// Profile is a folder for CPU profiles of all processes; empty for none.
	Profile string
	// Work is a WASI module that takes the place of programs/work in the row compute; it gets the same arguments.
	Work string
	Say  func(format string, args ...any) // progress
}

type session struct {
	Config
	dir   string
	first time.Duration // the median of the first row, when it is known
	tools *programs
	// net is the network of one provider and one consumer that rows share.
	net  *dev.Network
	node nodev1.NodeServiceClient
}

// Run measures. What fails to run is an error, and the report then lacks its figures; a figure that misses its aim is none.
func Run(ctx context.Context, cfg Config) (r Report, err error) {
	dir, err := os.MkdirTemp(cfg.Dir, "bench")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	s := &session{Config: cfg, dir: dir, tools: &programs{dir: dir}}
	defer func() { err = errors.Join(err, s.stop()) }()
	r = Report{Began: time.Now().UTC(), Quick: cfg.Quick, Machine: thisMachine(dir), Versions: versions(cfg.Bin)}
	stolenBefore := stolen()
	rows := map[string]func(context.Context) ([]Figure, error){
		"footprint": s.footprint, "latency": s.latency, "throughput": s.throughput, "map": s.mapping, "program": s.program, "compute": s.compute,
		"content": s.content, "events": s.events, "lost": s.lost, "scale": s.scale, "traffic": s.traffic, "tor": s.tor, "tor-content": s.torContent, "tor-delay": s.torDelay, "tor-scale": s.torScale, "compose": s.compose,
	}
	for _, name := range []string{"footprint", "latency", "throughput", "map", "program", "compute", "content", "events", "lost", "scale", "traffic", "tor", "tor-content", "tor-delay", "tor-scale", "compose"} {
		if len(cfg.Rows) > 0 && !slices.Contains(cfg.Rows, name) || len(cfg.Rows) == 0 && slices.Contains(Apart, name) {
			continue
		}
		cfg.Say("%s ...", name)
		figures, rerr := rows[name](ctx)
		if rerr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, rerr))
		}
		for i := range figures {
			figures[i].Row = name
		}
		r.Figures = append(r.Figures, figures...)
	}
	slices.SortStableFunc(r.Figures, func(a, b Figure) int { return slices.Index(Rows, a.Row) - slices.Index(Rows, b.Row) })
	took := time.Since(r.Began)
	r.Seconds, r.Machine.LoadAfter = took.Seconds(), load()
	r.Machine.StolenPercent = (stolen() - stolenBefore) / took.Seconds() * 100
	return r, err
}

// network starts the network that rows share, the first time.
func (s *session) network(ctx context.Context) error {
	if s.net != nil {
		return nil
	}
	if s.Profile != "" {
		if err := os.MkdirAll(s.Profile, 0o755); err != nil {
			return err
		}
		if err := os.Setenv("SHALLOT_CPUPROFILE", s.Profile); err != nil { // the processes inherit it
			return err
		}
		defer os.Unsetenv("SHALLOT_CPUPROFILE")
	}
	net, err := dev.Start(ctx, dev.Config{Bin: s.Bin, Dir: filepath.Join(s.dir, "net"), Providers: 1, Consumers: 1})
	if err != nil {
		return err
	}
	node, err := net.Node("consumer-1")
	if err != nil {
		return errors.Join(err, net.Stop())
	}
	s.net, s.node = net, node
	return nil
}

func (s *session) stop() error {
	if s.net == nil {
		return nil
	}
	names := map[int]string{}
	for _, node := range s.net.Nodes() {
		found, err := s.net.Processes(node)
		if err != nil {
			return err
		}
		for _, p := range found {
			names[p.Pid] = node + "-" + p.Name
		}
	}
	err := s.net.Stop()
	if s.Profile != "" {
		for pid, name := range names {
			// The executor's children, which have no environment, write none.
			old, _ := filepath.Glob(filepath.Join(s.Profile, fmt.Sprintf("*-%d.pprof", pid)))
			for _, f := range old {
				err = errors.Join(err, os.Rename(f, filepath.Join(s.Profile, name+".pprof")))
			}
		}
	}
	return err
}

// cpu is what the processes of both nodes, their supervisor and this client have taken, by name. The executor's children come and
// go under load: those that are gone count with the task service that had them.
func (s *session) cpu() (map[string]time.Duration, error) {
	taken := map[string]time.Duration{"client": measure.CPU(os.Getpid()), "supervisor": measure.CPU(s.net.Pid())}
	for _, node := range s.net.Nodes() {
		found, err := s.net.Processes(node)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			taken[node+" "+p.Name] += measure.CPU(p.Pid)
		}
	}
	return taken, nil
}

// or is a number of repetitions: many, or few in a quick run.
func (s *session) or(many, few int) int {
	if s.Quick {
		return few
	}
	return many
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
