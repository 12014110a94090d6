package bench

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/shallot-net/shallot/test/internal/floor"
	"github.com/shallot-net/shallot/test/internal/measure"
)

const (
	inFlight = 64
	// batches: ours and the floor take turns, so that a slow minute of the machine meets both.
	batches = 10
)

// latency is one task at a time.
func (s *session) latency(ctx context.Context) ([]Figure, error) {
	if err := s.network(ctx); err != nil {
		return nil, err
	}
	express, err := floor.Start(s.dir, true)
	if err != nil {
		return nil, err
	}
	defer express.Stop()
	runs := []struct {
		do func() error
		d  []time.Duration
	}{
		{do: express.Sum}, {do: func() error { return s.sum(ctx) }},
		{do: express.Wasm}, {do: func() error { return s.small(ctx) }},
	}
	for _, r := range runs {
		if _, err := measure.Latencies(s.or(100, 5), r.do); err != nil {
			return nil, err
		}
	}
	for range batches {
		for i := range runs {
			d, err := measure.Latencies(s.or(50, 2), runs[i].do)
			if err != nil {
				return nil, err
			}
			runs[i].d = append(runs[i].d, d...)
		}
	}
	var figures []Figure
	for i, what := range []string{"sum", "small wasm"} {
		floored, ours := runs[2*i].d, runs[2*i+1].d
		for _, q := range []float64{0.50, 0.99} {
			f := Figure{Name: fmt.Sprintf("%s, latency p%.0f", what, q*100), Unit: "ms", Ours: milliseconds(measure.Quantile(ours, q))}
			f = f.beside(milliseconds(measure.Quantile(floored, q)), "express")
			if q == 0.50 {
				f = f.atMost(1.5*f.Floor, "≤ 1.5 × express")
			}
			figures = append(figures, f)
		}
	}
	s.first = measure.Quantile(runs[3].d, 0.5)
	return figures, nil
}

// firstRow is the median latency of a small wasm program, measured now if its row was left out.
func (s *session) firstRow(ctx context.Context) (time.Duration, error) {
	if s.first > 0 {
		return s.first, nil
	}
	if _, err := measure.Latencies(s.or(50, 3), func() error { return s.small(ctx) }); err != nil {
		return 0, err
	}
	d, err := measure.Latencies(s.or(100, 5), func() error { return s.small(ctx) })
	s.first = measure.Quantile(d, 0.5)
	return s.first, err
}

// throughput is many tasks side by side.
func (s *session) throughput(ctx context.Context) ([]Figure, error) {
	if err := s.network(ctx); err != nil {
		return nil, err
	}
	lean, err := floor.Start(s.dir, false)
	if err != nil {
		return nil, err
	}
	defer lean.Stop()
	n, rounds := s.or(1000, 100), s.or(2, 1)
	small := func() error { return s.small(ctx) }
	if _, err := measure.InFlight(n/2, inFlight, lean.Wasm); err != nil {
		return nil, err
	}
	if _, err := measure.InFlight(n/2, inFlight, small); err != nil {
		return nil, err
	}
	floorCPU := func() (map[string]time.Duration, error) {
		taken := map[string]time.Duration{"client": measure.CPU(os.Getpid())}
		for role, pid := range lean.PIDs() {
			taken[role] = measure.CPU(pid)
		}
		return taken, nil
	}
	var ours, floored burst
	for range rounds {
		if err := floored.add(n, floorCPU, lean.Wasm); err != nil {
			return nil, err
		}
		if err := ours.add(n, s.cpu, small); err != nil {
			return nil, err
		}
	}
	detail := map[string]float64{"p50, ms": milliseconds(measure.Quantile(ours.each, 0.5)), "p99, ms": milliseconds(measure.Quantile(ours.each, 0.99))}
	perProcess := map[string]float64{}
	for name, cpu := range ours.cpu {
		perProcess[name+", ms"] = milliseconds(cpu) / float64(len(ours.each))
	}
	for role, cpu := range floored.cpu {
		perProcess["floor: "+role+", ms"] = milliseconds(cpu) / float64(len(floored.each))
	}
	rate := Figure{Name: fmt.Sprintf("%d small wasm tasks, %d in flight", n, inFlight), Unit: "/s", Ours: ours.rate(), Detail: detail}.beside(floored.rate(), "lean")
	cpu := Figure{Name: "the same, CPU a task, all processes", Unit: "ms", Ours: ours.cpuPerTask(), Detail: perProcess}.beside(floored.cpuPerTask(), "lean")
	return []Figure{
		rate.atLeast(0.7*rate.Floor, "≥ 0.7 × lean"),
		cpu.atMost(1.5*cpu.Floor, "≤ 1.5 × lean"),
		// A task that does not end as it should is an error above, so whoever reads this has lost none.
		Figure{Name: "the same, tasks lost", Ours: 0}.atMost(0, "none"),
	}, nil
}

// burst adds up what rounds of tasks took.
type burst struct {
	wall time.Duration
	each []time.Duration
	cpu  map[string]time.Duration
}

func (l *burst) add(n int, cpu func() (map[string]time.Duration, error), do func() error) error {
	before, err := cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	each, err := measure.InFlight(n, inFlight, do)
	if err != nil {
		return err
	}
	l.wall += time.Since(begin)
	l.each = append(l.each, each...)
	after, err := cpu()
	if l.cpu == nil {
		l.cpu = map[string]time.Duration{}
	}
	for name, t := range after {
		l.cpu[name] += t - before[name]
	}
	for name, t := range before {
		if _, ok := after[name]; !ok {
			l.cpu[name] -= t
		}
	}
	return err
}

func (l *burst) rate() float64 { return float64(len(l.each)) / l.wall.Seconds() }

func (l *burst) cpuPerTask() float64 {
	var sum time.Duration
	for _, c := range l.cpu {
		sum += c
	}
	return milliseconds(sum) / float64(len(l.each))
}
