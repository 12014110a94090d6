package top

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/cli/internal/render"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// asked is a node that answers what it is told to.
type asked struct {
	node               *nodev1.Node
	tasks              []*taskv1.Task
	own                *metricv1.KnownMetric
	err, tasksErr      error
	askedForItsOwnOnes bool
}

func (a *asked) Node(context.Context) (*nodev1.Node, error)         { return a.node, a.err }
func (a *asked) Tasks(context.Context) ([]*taskv1.Task, error)      { return a.tasks, a.tasksErr }
func (a *asked) Peers(context.Context) ([]*discoveryv1.Peer, error) { return nil, nil }
func (a *asked) Own(context.Context, *nodev1.Node) (*metricv1.KnownMetric, error) {
	a.askedForItsOwnOnes = true
	return a.own, nil
}

func ended(id string, state string, ago, took time.Duration) *taskv1.Task {
	return &taskv1.Task{Id: id, Type: "sum", State: state, FinishedAt: timestamppb.New(now.Add(-ago)), CreatedAt: timestamppb.New(now.Add(-ago - took)), Consumer: "12D3KooWGPRKSYkQtsAcnwUkCujXPGrYnyTxyWFzXxrsRvAMhKCf"}
}

func provider() *asked {
	a := &asked{
		node: &nodev1.Node{Role: "provider", Mode: "open", Ready: true, Online: true, Version: "v1", StartedAt: timestamppb.New(now.Add(-time.Hour)), Connections: 3, ProvidersKnown: 5,
			Processes: []*nodev1.Process{
				{Name: "broker", Pid: 7, State: "serving", StartedAt: timestamppb.New(now.Add(-time.Minute)), Memory: 64 << 20, Cpu: durationpb.New(3 * time.Second)},
				{Name: "task", State: "unreachable", Detail: "it does not answer"},
			}},
		own: &metricv1.KnownMetric{Own: true, Metric: &eventv1.Metric{Cpu: &eventv1.Cpu{Load: 0.5}, Memory: &eventv1.Memory{Free: 1 << 30, Total: 4 << 30}, Disk: &eventv1.Disk{Free: 1 << 30, Total: 2 << 30},
			Queue: &eventv1.Queue{Running: 2, Slots: 4, Pending: 9}}},
	}
	for i := range 100 {
		a.tasks = append(a.tasks, ended(strings.Repeat("a", 30)+string(rune('a'+i/10))+string(rune('a'+i%10)), "COMPLETED", time.Duration(i)*time.Second/2, time.Duration(i+1)*time.Millisecond))
	}
	a.tasks = append(a.tasks, ended("old", "FAILED", time.Hour, time.Hour))
	return a
}

func snapshot(t *testing.T, a *asked) *Snapshot {
	t.Helper()
	s, err := Look(t.Context(), a, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func screen(width, height int) *Screen {
	return &Screen{Width: width, Height: height, Now: now, Keys: true, Paint: func(_ render.Colour, s string) string { return s }}
}

func TestFigures(t *testing.T) {
	f := snapshot(t, provider()).Figures()
	want := Figures{PerMinute: 100, Half: 51 * time.Millisecond, Most: 100 * time.Millisecond, Waiting: 9, Running: 2, Slots: 4}
	if f != want {
		t.Errorf("got %+v", f)
	}
	a := provider()
	a.node.Role, a.tasks, a.tasksErr = "consumer", []*taskv1.Task{{State: "RUNNING"}, {State: "PENDING"}, {State: "ACCEPTED"}}, nil
	if f := snapshot(t, a).Figures(); (f != Figures{Waiting: 2, Running: 1}) || a.askedForItsOwnOnes {
		t.Errorf("a consumer: %+v", f)
	}
}

func TestAFrameFits(t *testing.T) {
	s := snapshot(t, provider())
	before := *s
	before.At = now.Add(-time.Second)
	before.Node = &nodev1.Node{Processes: []*nodev1.Process{{Name: "broker", Pid: 7, StartedAt: s.Node.GetProcesses()[0].GetStartedAt(), Cpu: durationpb.New(2500 * time.Millisecond)}}}
	for _, size := range [][2]int{{80, 24}, {132, 43}, {40, 10}, {20, 3}, {1, 1}} {
		c := screen(size[0], size[1])
		c.Before = &before
		lines := Frame(s, c)
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) > size[0] {
				t.Errorf("%v: %q", size, l)
			}
		}
		if size[0] < 80 {
			continue
		}
		all := strings.Join(lines, "\n")
		for _, want := range []string{"provider, open   ready   online   up 1h", "2 of 4 running, 9 waiting   100 in the last minute   p50 51ms, p99 100ms", "broker     7        serving      1m        50 %   64 MiB", "unreachable",
			"processor 50 %", "…RvAMhKCf", "q quit", "3 connected"} {
			if !strings.Contains(all, want) {
				t.Errorf("%v lacks %q:\n%s", size, want, all)
			}
		}
	}
}

// In a container every process has the same pid, and what replicas use is told as one sum.
func TestAnotherProcessIsNotComparedWith(t *testing.T) {
	s := snapshot(t, provider())
	now := s.Node.GetProcesses()[0]
	for name, p := range map[string]*nodev1.Process{
		"it began anew":         {Name: "broker", Pid: 7, StartedAt: timestamppb.New(s.At.Add(-time.Hour)), Cpu: durationpb.New(time.Second)},
		"a replica has ended":   {Name: "broker", Pid: 7, StartedAt: now.GetStartedAt(), Cpu: durationpb.New(time.Hour)},
		"nothing is told of it": {Name: "broker", Pid: 7, StartedAt: now.GetStartedAt()},
	} {
		before := *s
		before.At = s.At.Add(-time.Second)
		before.Node = &nodev1.Node{Processes: []*nodev1.Process{p}}
		c := screen(80, 24)
		c.Before = &before
		if got := c.share(s, now); got != "-" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestWhatComesFromElsewhereIsClean(t *testing.T) {
	a := provider()
	a.tasks = []*taskv1.Task{ended("\x1b[2J", "COMPLETED\x1b[31m", 0, 0)}
	a.tasks[0].Type, a.tasks[0].ConsumerAlias = "\x07bell", "a\nb\u202e"
	a.node.Version, a.node.Processes[1].Detail = "\x1b]0;title\x07", "no\rway"
	c := screen(120, 40)
	c.Away, c.AwaySince = errors.New("\x1b[1mbold"), now
	for _, l := range Frame(snapshot(t, a), c) {
		if strings.ContainsAny(l, "\x1b\x07\n\r\u202e") {
			t.Errorf("%q", l)
		}
	}
}

func TestKeysAndAbsence(t *testing.T) {
	a := provider()
	m := &model{ctx: t.Context(), cfg: Config{Asker: a, Now: func() time.Time { return now }}, screen: *screen(80, 24)}
	frame := func() string { return strings.Join(Frame(m.now, &m.screen), "\n") }
	send := func(msg tea.Msg) (next tea.Cmd) { _, next = m.Update(msg); return next }
	if !strings.Contains(frame(), "nothing is known") {
		t.Errorf("before the first look:\n%s", frame())
	}
	if send(m.look()) == nil {
		t.Error("there is no next look")
	}
	first := frame()
	send(tea.KeyPressMsg{Code: tea.KeyDown})
	if moved := frame(); moved == first || !strings.Contains(moved, "TASK") {
		t.Errorf("an arrow does not scroll:\n%s", moved)
	}
	send(tea.KeyPressMsg{Code: tea.KeyHome})
	var seen []string
	for range orders {
		seen = append(seen, strings.Split(frame(), "TASK")[1])
		send(tea.KeyPressMsg{Code: 's', Text: "s"})
	}
	if slices.Contains(seen[1:], seen[0]) || frame() != first {
		t.Error("key s does not go through the orders")
	}
	a.err = errors.New("nobody is there")
	send(m.look())
	if away := frame(); !strings.Contains(away, "the node is away since") || !strings.Contains(away, "nobody is there") || !strings.Contains(away, "aaaaaaaaaaaa") {
		t.Errorf("away:\n%s", away)
	}
	a.err = nil
	send(m.look())
	if frame() != first {
		t.Errorf("back:\n%s", frame())
	}
	if cmd := send(tea.KeyPressMsg{Code: 'q', Text: "q"}); cmd == nil || cmd() != tea.Quit() {
		t.Error("q does not quit")
	}
}
