package command

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/cli/internal/render"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// at is a timestamp as a time; zero when it is not set.
func at(ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	return ts.AsTime()
}

func attempts(t *taskv1.Task) string { return strconv.FormatUint(uint64(t.GetAttempts()), 10) }

func exitText(t *taskv1.Task) string {
	if t.ExitCode == nil {
		return ""
	}
	return strconv.Itoa(int(t.GetExitCode()))
}

// took is the time from a task's making to its end.
func took(t *taskv1.Task) string {
	from, to := at(t.GetCreatedAt()), at(t.GetFinishedAt())
	if from.IsZero() || to.IsZero() {
		return ""
	}
	return render.Duration(to.Sub(from))
}

// replicas says who keeps the result beside the provider, as far as is known.
func replicas(t *taskv1.Task) string {
	if t.GetReplicas() < 2 && len(t.GetReplicaPeers()) == 0 {
		return ""
	}
	out := []string{fmt.Sprintf("%d wanted", max(t.GetReplicas(), 1))}
	for _, r := range t.GetReplicaPeers() {
		who := render.PeerCell(r.GetAlias(), r.GetPeerId())
		switch r.GetState() {
		case "KEPT":
			out = append(out, "kept by "+who)
		case "REFUSED":
			out = append(out, "refused by "+who+": "+render.Clean(r.GetReason()))
		case "SILENT":
			out = append(out, who+" did not answer")
		case "ASKED":
			out = append(out, who+" was asked")
		}
	}
	return strings.Join(out, "; ")
}

type pairRows [][2]render.Cell

func (p *pairRows) add(name, value string, colour ...render.Colour) {
	if value == "" {
		return
	}
	c := render.Cell{Text: value}
	if len(colour) > 0 {
		c.Colour = colour[0]
	}
	*p = append(*p, [2]render.Cell{{Text: name}, c})
}

func (a *app) printTask(t *taskv1.Task) error {
	if a.json() {
		return a.out().Object(render.Proto(t))
	}
	var p pairRows
	p.add("id", t.GetId())
	p.add("type", t.GetType())
	p.add("state", t.GetState(), render.StateColour(t.GetState()))
	if g := t.GetProgress(); g != nil {
		p.add("progress", fmt.Sprintf("%.0f%% %s (%s)", 100*g.GetFraction(), render.Clean(g.GetText()), render.Age(a.Now(), at(g.GetAt()))), render.Busy)
	}
	if t.GetError() != nil {
		p.add("error", reason(t), render.Bad)
	}
	p.add("exit code", exitText(t))
	p.add("provider", render.Peer(t.GetProviderAlias(), t.GetProvider()))
	p.add("consumer", render.Peer(t.GetConsumerAlias(), t.GetConsumer()))
	p.add("replicas", replicas(t))
	p.add("attempts", attempts(t))
	p.add("created", a.moment(at(t.GetCreatedAt())))
	p.add("started", a.moment(at(t.GetStartedAt())))
	p.add("finished", a.moment(at(t.GetFinishedAt())))
	p.add("took", took(t))
	p.add("limits", limits(t.GetLimits()))
	p.add("used", used(t.GetUsage()))
	if r := t.GetResult(); r != nil {
		p.add("result", resultSizes(r))
		p.add("result CID", r.GetCid())
	}
	p.add("labels", labels(t.GetLabels()))
	if err := a.out().Pairs(p); err != nil {
		return err
	}
	return a.printHistory(t)
}

func (a *app) printHistory(t *taskv1.Task) error {
	if len(t.GetHistory()) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(a.Stdout); err != nil {
		return err
	}
	var rows [][]render.Cell
	start := at(t.GetHistory()[0].GetAt())
	for _, h := range t.GetHistory() {
		rows = append(rows, []render.Cell{
			{Text: "+" + render.Duration(at(h.GetAt()).Sub(start))}, {Text: strconv.FormatUint(uint64(h.GetAttempt()), 10)},
			{Text: h.GetWhat()}, {Text: h.GetState(), Colour: render.StateColour(h.GetState())},
			{Text: render.PeerCell(h.GetAlias(), h.GetPeerId())}, {Text: h.GetDetail()},
		})
	}
	return a.out().Table([]string{"at", "attempt", "what", "state", "peer", "detail"}, rows)
}

// moment is a time and how long ago that was.
func (a *app) moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05.000 MST") + " (" + render.Age(a.Now(), t) + ")"
}

func limits(l *eventv1.Limits) string {
	var out []string
	if d := l.GetTime().AsDuration(); d > 0 {
		out = append(out, render.Duration(d))
	}
	if l.GetMemory() > 0 {
		out = append(out, render.Bytes(l.GetMemory())+" memory")
	}
	if l.GetOutput() > 0 {
		out = append(out, render.Bytes(l.GetOutput())+" output")
	}
	return strings.Join(out, ", ")
}

func used(u *eventv1.Usage) string {
	if u == nil {
		return ""
	}
	out := []string{render.Duration(u.GetWall().AsDuration())}
	if d := u.GetCpu().AsDuration(); d > 0 {
		out = append(out, render.Duration(d)+" CPU")
	}
	if u.GetPeakMemory() > 0 {
		out = append(out, render.Bytes(u.GetPeakMemory())+" memory")
	}
	return strings.Join(append(out, render.Bytes(u.GetOutput())+" output"), ", ")
}

func resultSizes(r *taskv1.ResultInfo) string {
	out := []string{render.Bytes(r.GetStdoutSize()) + " stdout", render.Bytes(r.GetStderrSize()) + " stderr"}
	for _, f := range r.GetFiles() {
		out = append(out, f.GetPath()+" "+render.Bytes(f.GetSize()))
	}
	if !r.GetAvailable() {
		out = append(out, "not on this node")
	}
	return strings.Join(out, ", ")
}

func labels(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}
