package top

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/shallot-net/shallot/cli/internal/render"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Orders of the list of tasks; key s goes through them.
var orders = []string{"newest", "state", "slowest", "type"}

// Screen is what a frame is made of beside the node itself.
type Screen struct {
	Width, Height int // Height 0: as long as it gets
	Order         int
	Scroll        int
	Before        *Snapshot // for what has changed since; nil: nothing to compare with
	Away          error     // why the node does not answer, where it does not
	AwaySince     time.Time
	Now           time.Time
	Paint         func(c render.Colour, s string) string
	Keys          bool // say which keys there are
}

type line []span

type span struct {
	text   string
	colour render.Colour
}

func say(format string, args ...any) span { return span{text: fmt.Sprintf(format, args...)} }

// Frame is the lines to show: none wider than the screen, and not more of them than it has. Everything that the node says is cleaned.
func Frame(s *Snapshot, c *Screen) []string {
	var all []line
	if c.Away != nil {
		all = append(all, line{{"the node is away", render.Bad}, say(" since %s: %s", c.AwaySince.Local().Format("15:04:05"), c.Away)})
	}
	if s == nil {
		return c.fit(append(all, line{say("nothing is known of it yet")}), nil)
	}
	all = append(all, c.head(s)...)
	all = append(all, line{})
	all = append(all, c.processes(s)...)
	all = append(all, line{})
	return c.fit(all, c.tasks(s))
}

// fit puts the list under the head, as much of it as there is room for, and the keys at the bottom.
func (c *Screen) fit(head, list []line) []string {
	var foot []line
	if c.Keys {
		foot = []line{{say("q quit   s sort: %s   ↑ ↓ scroll", orders[c.Order])}}
	}
	all := append(head, list...)
	if c.Height > 0 {
		room := max(c.Height-len(foot), 0)
		if len(head) > room {
			head = head[:room]
		}
		rest := room - len(head)
		all = head
		if rest > 1 && len(list) > 1 { // its header stays
			body := list[1:]
			from := min(c.Scroll, max(len(body)-(rest-1), 0))
			all = append(append(all, list[0]), body[from:min(from+rest-1, len(body))]...)
		}
		for len(all) < room && c.Keys {
			all = append(all, line{})
		}
	}
	out := make([]string, 0, len(all)+1)
	for _, l := range append(all, foot...) {
		out = append(out, c.draw(l))
	}
	return out
}

// draw cuts before it paints: what is cut has no colours in it.
func (c *Screen) draw(l line) string {
	var b strings.Builder
	left := c.Width
	for _, s := range l {
		t := render.Clean(s.text)
		if w := text.StringWidthWithoutEscSequences(t); w > left {
			t = text.Trim(t, left)
		}
		left -= text.StringWidthWithoutEscSequences(t)
		b.WriteString(c.Paint(s.colour, t))
		if left <= 0 {
			break
		}
	}
	return strings.TrimRight(b.String(), " ")
}

func flag(word, not string, ok bool) span {
	if ok {
		return span{word, render.Good}
	}
	return span{not, render.Bad}
}

func (c *Screen) head(s *Snapshot) []line {
	n := s.Node
	first := line{say("%s, %s   ", n.GetRole(), n.GetMode()), flag("ready", "not ready", n.GetReady()), say("   "), flag("online", "offline", n.GetOnline()),
		say("   up %s   %s   %s", render.Duration(s.At.Sub(n.GetStartedAt().AsTime()).Truncate(time.Second)), c.Now.Local().Format("15:04:05"), n.GetVersion())}
	out := []line{first}
	if n.GetMode() == "anonymous" {
		l := line{say("fence "), flag(n.GetFence(), cmp.Or(n.GetFence(), "unknown"), n.GetFence() == "enclosed"), say("   tor "), flag(n.GetTor().GetState(), cmp.Or(n.GetTor().GetState(), "unknown"), n.GetTor().GetState() == "online")}
		if n.GetTor().GetDetail() != "" {
			l = append(l, say(" (%s)", n.GetTor().GetDetail()))
		}
		out = append(out, l)
	}
	f := s.Figures()
	running := strconv.Itoa(int(f.Running))
	if f.Slots > 0 {
		running += " of " + strconv.Itoa(int(f.Slots))
	}
	l := line{say("tasks  %s running, %d waiting   %d in the last minute", running, f.Waiting, f.PerMinute)}
	if f.Most > 0 {
		l = append(l, say("   p50 %s, p99 %s", render.Duration(f.Half), render.Duration(f.Most)))
	}
	out = append(out, l)
	connected := 0
	for _, p := range s.Peers {
		if p.GetConnected() {
			connected++
		}
	}
	out = append(out, line{say("peers  %d connected, %d providers known, %d of those listed are connected", n.GetConnections(), n.GetProvidersKnown(), connected)})
	if m := s.Own.GetMetric(); m != nil {
		out = append(out, line{say("host   processor %.0f %%   memory %s free of %s   disk %s free of %s", m.GetCpu().GetLoad()*100,
			render.Bytes(m.GetMemory().GetFree()), render.Bytes(m.GetMemory().GetTotal()), render.Bytes(m.GetDisk().GetFree()), render.Bytes(m.GetDisk().GetTotal()))})
	}
	return out
}

// columns lays cells out: each column as wide as it says, the last one takes what is left.
func columns(widths []int, cells []span) line {
	var l line
	for i, s := range cells {
		if i < len(widths) {
			t := render.Clean(s.text)
			if text.StringWidthWithoutEscSequences(t) > widths[i] {
				t = text.Trim(t, widths[i]-1) + "…"
			}
			s.text = text.Pad(t, widths[i]+1, ' ')
		}
		l = append(l, s)
	}
	return l
}

func headers(names ...string) (out []span) {
	for _, n := range names {
		out = append(out, span{n, render.Faint})
	}
	return out
}

func processColour(state string) render.Colour {
	switch state {
	case "serving":
		return render.Good
	case "unreachable":
		return render.Bad
	}
	return render.Busy
}

// share is the part of a core that a process has used since the last look.
func (c *Screen) share(s *Snapshot, of *nodev1.Process) string {
	cpu := of.GetCpu().AsDuration()
	if c.Before == nil || cpu == 0 {
		return "-"
	}
	since := s.At.Sub(c.Before.At)
	for _, p := range c.Before.Node.GetProcesses() {
		same := p.GetName() == of.GetName() && p.GetPid() == of.GetPid() && p.GetStartedAt().AsTime().Equal(of.GetStartedAt().AsTime())
		// Replicas are told of together, and in containers all have one pid: where one began anew, or did not answer, there is nothing to compare.
		if same && since > 0 && p.GetCpu() != nil && cpu >= p.GetCpu().AsDuration() {
			return fmt.Sprintf("%.0f %%", float64(cpu-p.GetCpu().AsDuration())/float64(since)*100)
		}
	}
	return "-"
}

func (c *Screen) processes(s *Snapshot) []line {
	widths := []int{10, 8, 12, 9, 6, 10}
	out := []line{columns(widths, headers("PROCESS", "PID", "STATE", "AGE", "CPU", "MEMORY", "DETAIL"))}
	for _, p := range s.Node.GetProcesses() {
		age, memory := "-", "-"
		if p.GetStartedAt() != nil {
			age = render.Duration(s.At.Sub(p.GetStartedAt().AsTime()).Truncate(time.Second))
		}
		if p.GetMemory() > 0 {
			memory = render.Bytes(p.GetMemory())
		}
		out = append(out, columns(widths, []span{say("%s", p.GetName()), say("%d", p.GetPid()), {strings.ReplaceAll(p.GetState(), "_", " "), processColour(p.GetState())},
			say("%s", age), say("%s", c.share(s, p)), say("%s", memory), say("%s", p.GetDetail())}))
	}
	return out
}

func (c *Screen) sorted(s *Snapshot) []*taskv1.Task {
	out := slices.Clone(s.Tasks) // newest first
	switch orders[c.Order] {
	case "state":
		slices.SortStableFunc(out, func(a, b *taskv1.Task) int { return cmp.Compare(a.GetState(), b.GetState()) })
	case "slowest":
		slices.SortStableFunc(out, func(a, b *taskv1.Task) int { return cmp.Compare(took(b, s.At), took(a, s.At)) })
	case "type":
		slices.SortStableFunc(out, func(a, b *taskv1.Task) int { return cmp.Compare(a.GetType(), b.GetType()) })
	}
	return out
}

func (c *Screen) tasks(s *Snapshot) []line {
	widths := []int{12, 10, 10, 12, 9}
	out := []line{columns(widths, headers("TASK", "TYPE", "STATE", "SUBMITTED", "TOOK", "PEER"))}
	for _, t := range c.sorted(s) {
		peer := render.PeerCell(t.GetProviderAlias(), t.GetProvider())
		if s.Node.GetRole() == "provider" {
			peer = render.PeerCell(t.GetConsumerAlias(), t.GetConsumer())
		}
		out = append(out, columns(widths, []span{say("%s", render.ShortID(t.GetId())), say("%s", t.GetType()), {t.GetState(), render.StateColour(t.GetState())},
			say("%s", render.Age(s.At, t.GetCreatedAt().AsTime())), say("%s", render.Duration(took(t, s.At))), say("%s", render.Dash(peer))}))
	}
	if len(out) == 1 {
		out = append(out, line{say("no tasks")})
	}
	return out
}
