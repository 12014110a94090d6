package domain

import (
	"slices"
	"time"
)

// Of a node's history: a point every HistoryStep, for HistorySpan.
const (
	HistoryStep   = 10 * time.Second
	HistorySpan   = 24 * time.Hour
	HistoryPoints = int(HistorySpan / HistoryStep)
)

// Point is what a node did in one step, or in several.
type Point struct {
	Time             time.Time // of its end
	Waiting, Running uint32    // tasks, at its end
	Finished, Failed uint32    // tasks that ended in it
	P50, P99         time.Duration
	CPU              float64 // processors that its processes used, in the mean
	Memory           uint64  // resident bytes of its processes, at its end
	Used             uint64  // bytes of its content
	Free             uint64  // bytes of the file system of its home
}

// History is the newest points, HistoryPoints at most.
type History struct{ points []Point }

// Add appends a point; one that is not newer than the last is dropped: the clock was set back.
func (h *History) Add(p Point) {
	if n := len(h.points); n > 0 && !p.Time.After(h.points[n-1].Time) {
		return
	}
	if len(h.points) >= HistoryPoints+HistoryPoints/8 { // moved now and then, and not with each point
		h.points = slices.Clone(h.points[len(h.points)-HistoryPoints+1:])
	}
	h.points = append(h.points, p)
}

// Oldest is the time of the oldest point; zero where there is none.
func (h *History) Oldest() time.Time {
	if len(h.points) == 0 {
		return time.Time{}
	}
	return h.points[0].Time
}

// Since returns the points after a moment, so many at most: each is of as many steps as that takes.
func (h *History) Since(t time.Time, most int) (step time.Duration, out []Point) {
	i, _ := slices.BinarySearchFunc(h.points, t, func(p Point, t time.Time) int {
		if p.Time.After(t) {
			return 1
		}
		return -1
	})
	list := h.points[i:]
	if len(list) == 0 {
		return HistoryStep, nil
	}
	step = HistoryStep
	for span := list[len(list)-1].Time.Sub(list[0].Time); int(span/step)+2 > most; {
		step += HistoryStep
	}
	for _, p := range list {
		end := p.Time.Truncate(step).Add(step)
		if n := len(out); n > 0 && step > HistoryStep && out[n-1].Time.Truncate(step).Add(step).Equal(end) {
			out[n-1] = join(out[n-1], p)
		} else {
			out = append(out, p)
		}
	}
	return step, out
}

// join puts a later point to one: what is counted is added, the worst of what is a quantile stays, and of the rest the later.
func join(a, b Point) Point {
	b.Finished, b.Failed = a.Finished+b.Finished, a.Failed+b.Failed
	b.P50, b.P99 = max(a.P50, b.P50), max(a.P99, b.P99)
	b.CPU = max(a.CPU, b.CPU)
	return b
}

// Quantile is the q-th of durations, which it sorts; 0 of none.
func Quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(int(q*float64(len(d))), len(d)-1)]
}
