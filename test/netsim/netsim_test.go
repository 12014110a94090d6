//go:build !race

// Thousands of nodes are more goroutines than the race detector follows, and one simulation is no place to look for races: the services' own
// tests are.

package netsim_test

import (
	"fmt"
	"math"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/test/netsim"
)

// measured is what ten real providers that do nothing send and receive, KiB a node and minute, by `bench -rows traffic`: the model of gossip is
// held against it.
const measured = 878

// random is the share of tasks that find all slots taken where half of all are busy and every provider is as likely as any other: four servers
// and a queue (Erlang's C).
const random = 0.174

// plan is how long to look at a network of a size. Zero times leave a part out.
type plan struct {
	size                int
	idle, placing       time.Duration
	newcomers           int
	churning, lifetimes time.Duration
}

func TestTenNodesInAModelSayWhatTenRealOnesDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := netsim.New()
		must(t, w.Join(10, 5*time.Second))
		<-time.After(90 * time.Second)
		got := w.Listen(2*time.Minute).Total() / 1024
		t.Logf("%.0f KiB a node and minute; ten real ones: %d", got, measured)
		if got < measured*0.7 || got > measured*1.4 {
			t.Errorf("ten providers say %.0f KiB a node and minute; real ones say %d", got, measured)
		}
		must(t, w.Close())
	})
}

func TestAThousandNodes(t *testing.T) {
	look(t, plan{size: 1000, idle: 30 * time.Second, newcomers: 1})
}

func TestTasksOfSomeHundredNodes(t *testing.T) {
	look(t, plan{size: 300, idle: 30 * time.Second, newcomers: 1, placing: time.Minute})
}

func TestManyThousandNodes(t *testing.T) {
	if os.Getenv("SHALLOT_LONG") == "" {
		t.Skip("a quarter of an hour and some GiB: `make test-long` has it")
	}
	idle := map[int]float64{}
	for _, p := range []plan{
		{size: 300, idle: time.Minute, newcomers: 3, placing: 3 * time.Minute, churning: 3 * time.Minute, lifetimes: time.Hour},
		{size: 1000, idle: 2 * time.Minute, newcomers: 2, placing: 2 * time.Minute, churning: 2 * time.Minute, lifetimes: time.Hour},
		{size: 4000, idle: time.Minute, newcomers: 1, placing: time.Minute, churning: time.Minute, lifetimes: 4 * time.Hour},
		{size: 10_000, idle: 45 * time.Second, newcomers: 1, placing: time.Minute, churning: 30 * time.Second, lifetimes: 4 * time.Hour},
	} {
		t.Run(fmt.Sprint(p.size), func(t *testing.T) { idle[p.size] = look(t, p) })
	}
	// From a thousand on, not more than the logarithm, and what a minute differs by from another.
	if base := idle[1000]; base > 0 {
		for n, got := range idle {
			if most := base * math.Log(float64(n)) / math.Log(1000) * 1.15; n > 1000 && got > most {
				t.Errorf("an idle node of %d says and hears %.0f KiB a minute, of 1000 %.0f: by the logarithm it may be %.0f", n, got, base, most)
			}
		}
	}
}

// look returns what an idle node says and hears, KiB a minute.
func look(t *testing.T, p plan) (total float64) {
	synctest.Test(t, func(t *testing.T) {
		row := func(format string, args ...any) { t.Logf(format, args...) }
		began := used()
		defer func() { row("%.0f s of processor time", (used() - began).Seconds()) }()
		w := netsim.New()
		defer func() { must(t, w.Close()) }()
		steady, err := w.Settle(p.size)
		must(t, err)
		row("settled after %.0f s of processor time", (used() - began).Seconds())
		idle := w.Listen(min(p.idle, steady))
		traffic := func(what string, x netsim.Traffic) {
			const k = 1024
			row("%s: %.0f KiB a node and minute (announcements %.0f, metrics %.0f, lists %.0f, events %.0f, pings and dials %.0f); %.0f announcements and %.0f metrics heard",
				what, x.Total()/k, x.Announcements/k, x.Metrics/k, x.Lists/k, x.Events/k, x.Pings/k, x.AnnouncementsHeard, x.MetricsHeard)
		}
		traffic("idle", idle)
		total = idle.Total() / 1024
		if most := measured * math.Log(float64(p.size)) / math.Log(10); idle.Total()/1024 > most {
			t.Errorf("an idle node says and hears %.0f KiB a minute; by the logarithm of the network it may be %.0f", idle.Total()/1024, most)
		}
		view(t, w.Look(), row)
		for range p.newcomers {
			newcomer(t, w, p.size, row)
		}
		if p.churning == 0 {
			place(t, w, p, row)
			return
		}
		churn := make(chan error, 1)
		go func() {
			n, err := w.Churn(p.lifetimes, p.churning+netsim.Warm+p.placing)
			row("%d providers left and as many joined", n)
			churn <- err
		}()
		traffic(fmt.Sprint("all others after ", p.lifetimes), w.Listen(p.churning))
		place(t, w, p, row)
		must(t, <-churn)
		view(t, w.Look(), row)
	})
	return total
}

// view: providers know about how many there are, or their intervals would be wrong.
func view(t *testing.T, v netsim.View, row func(string, ...any)) {
	t.Helper()
	row("%d providers; known by name %d, estimated %v by discovery, %v by metric (of 20 the lowest, median, highest); %.1f connections, %.1f in the mesh",
		v.Size, v.Known[1], v.Estimated, v.ByMetric, v.Conns, v.Degree)
	for _, e := range [][3]int{v.Estimated, v.ByMetric} {
		if n := float64(v.Size); float64(e[0]) < n*0.55 || float64(e[1]) < n*0.75 || float64(e[1]) > n*1.35 || float64(e[2]) > n*1.6 {
			t.Errorf("%d providers are estimated as %v", v.Size, e)
		}
	}
}

func newcomer(t *testing.T, w *netsim.World, size int, row func(string, ...any)) {
	t.Helper()
	n, err := w.Follow()
	must(t, err)
	row("a newcomer knew 64 providers after %v, nine in ten had heard of it after %.1f s, %d kept it in their tables", n.Knows, n.HeardBy.Seconds(), n.KeptBy)
	if n.Knows == 0 || n.Knows > 10*time.Second {
		t.Errorf("a newcomer knew 64 providers after %v", n.Knows)
	}
	if n.HeardBy == 0 || n.KeptBy < min(size, 256)/2 {
		t.Errorf("nine in ten providers had heard of a newcomer after %v (0: not in a minute), %d kept it", n.HeardBy, n.KeptBy)
	}
}

func place(t *testing.T, w *netsim.World, plan plan, row func(string, ...any)) {
	t.Helper()
	if plan.placing == 0 {
		return
	}
	p := w.Place(max(plan.size/100, 4), 0.5, plan.placing)
	slices.Sort(p.Ages)
	slices.Sort(p.Loads)
	age := time.Duration(0)
	if len(p.Ages) > 0 {
		age = p.Ages[len(p.Ages)/2]
	}
	n, waited := float64(p.Placed), float64(p.Waited)/float64(max(p.Placed, 1))
	slices.Sort(p.Took)
	row("%d tasks placed, %d nowhere; %.0f %% at a provider of known load, %v old in the median; choosing took %v in the median and %v in 19 of 20; %.1f %% had to wait; a provider got %d tasks in the median, %d in 19 of 20 and %d at most; a consumer says and hears %.1f KiB a task",
		p.Placed, p.Nowhere, 100*float64(len(p.Ages))/n, age.Round(time.Millisecond), p.Took[len(p.Took)/2], p.Took[len(p.Took)*19/20], 100*waited,
		p.Loads[len(p.Loads)/2], p.Loads[len(p.Loads)*19/20], p.Loads[len(p.Loads)-1], float64(p.Bytes)/1024/n)
	if p.Placed < plan.size/10 || p.Nowhere > p.Placed/50 {
		t.Errorf("%d tasks were placed and %d were not", p.Placed, p.Nowhere)
	}
	if waited > random*1.2 {
		t.Errorf("%.1f %% of tasks had to wait; among random providers it would be %.1f %%", 100*waited, 100*random)
	}
	if age > 10*time.Second || float64(len(p.Ages)) < 0.9*n {
		t.Errorf("%d of %d tasks are placed by a metric, %v old in the median", len(p.Ages), p.Placed, age)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// used is the processor time of this process: its clock is virtual.
func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
