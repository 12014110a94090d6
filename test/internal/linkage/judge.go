package linkage

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Rules are by what a verdict is given.
type Rules struct {
	// Limit is the area under the curve that no feature may exceed, while its lower bound exceeds a half.
	Limit float64
	// Error is the chance that anything is found where there is nothing: of all features together.
	Error float64
	// Learn has half of the tasks teach which way features point, and a classifier; the others are judged. Without it all tasks are judged by single features.
	Learn bool
	Seed  uint64
}

// Promise is what anonymous mode is held to.
var Promise = Rules{Limit: 0.55, Error: 0.05, Learn: true, Seed: 1}

// Finding is what a feature tells.
type Finding struct {
	Name  string
	AUC   float64
	Lower float64 // only where AUC is above the limit
	Pairs int     // judged ones that it says something of
}

func (f Finding) String() string {
	s := fmt.Sprintf("%.3f  %s (%d pairs", f.AUC, f.Name, f.Pairs)
	if f.Lower > 0 {
		s += fmt.Sprintf(", at least %.3f", f.Lower)
	}
	return s + ")"
}

// Verdict is of a set of tasks.
type Verdict struct {
	Findings []Finding // of all features that differ between tasks, the highest first
	Combined Finding   // of the classifier, where one learnt
	Weights  []string  // its largest, with signs
	Same     []string  // names of what is the same in all tasks
	Tasks    int       // judged
	rules    Rules
}

// Links are the findings that fail.
func (v *Verdict) Links() (out []Finding) {
	for _, f := range append(slices.Clone(v.Findings), v.Combined) {
		if f.AUC > v.rules.Limit && f.Lower > 0.5 {
			out = append(out, f)
		}
	}
	return out
}

// Best is the highest area of all.
func (v *Verdict) Best() (best Finding) {
	for _, f := range append(slices.Clone(v.Findings), v.Combined) {
		if f.AUC > best.AUC {
			best = f
		}
	}
	return best
}

func (v *Verdict) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d tasks judged by %d features; %d values are the same in all\n", v.Tasks, len(v.Findings), len(v.Same))
	if v.Combined.Name != "" {
		fmt.Fprintln(&s, v.Combined, strings.Join(v.Weights, ", "))
	}
	for i, f := range v.Findings {
		if i == 12 {
			break
		}
		fmt.Fprintln(&s, f)
	}
	return s.String()
}

// column is a feature of pairs: more for more alike, NaN for no word.
type column struct {
	name  string
	score func(i, j int) float64
	plain bool // there is nothing to learn of it, so that all tasks can be judged by it
}

// Judge tells how well pairs of one consumer's tasks can be told from other pairs.
func Judge(tasks []*Task, rules Rules) (*Verdict, error) {
	rng := rand.New(rand.NewPCG(rules.Seed, 0))
	order := rng.Perm(len(tasks))
	lesson, exam := order[:0], order
	if rules.Learn {
		lesson, exam = order[:len(order)/2], order[len(order)/2:]
	}
	columns, same := features(tasks)
	v := &Verdict{Same: same, Tasks: len(exam), rules: rules}
	taught, asked, everything := pairsOf(tasks, lesson), pairsOf(tasks, exam), pairsOf(tasks, order)
	if !mixed(asked) || rules.Learn && !mixed(taught) {
		return nil, errors.New("there are not pairs of both kinds: more tasks of more consumers are needed")
	}
	alpha := rules.Error / float64(len(columns)+1)
	for _, c := range columns {
		sign, judged, which := 1.0, asked, exam
		if c.plain {
			judged, which = everything, order
		} else if rules.Learn {
			if a := newCurve(scores(c, taught, lesson), 1).auc(nil); a < 0.5 {
				sign = -1
			}
		}
		if f, ok := find(c.name, scores(c, judged, which), sign, len(which), alpha, rules, rng); ok {
			v.Findings = append(v.Findings, f)
		}
	}
	slices.SortFunc(v.Findings, func(a, b Finding) int {
		switch {
		case a.AUC > b.AUC:
			return -1
		case a.AUC < b.AUC:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	if rules.Learn {
		v.combine(columns, taught, asked, lesson, exam, alpha, rng)
	}
	return v, nil
}

func (v *Verdict) combine(columns []column, taught, asked []pair, lesson, exam []int, alpha float64, rng *rand.Rand) {
	kind := make([]bool, len(taught))
	for i, p := range taught {
		kind[i] = p.same
	}
	model := train(rows(columns, taught, lesson), kind)
	all := make([]scored, len(asked))
	for i, r := range rows(columns, asked, exam) {
		all[i] = scored{asked[i], model.score(r)}
	}
	v.Combined, _ = find("all together", all, 1, len(exam), alpha, v.rules, rng)
	heaviest := make([]int, len(columns))
	for i := range heaviest {
		heaviest[i] = i
	}
	slices.SortFunc(heaviest, func(a, b int) int { return int(math.Copysign(1, math.Abs(model.weight[b])-math.Abs(model.weight[a]))) })
	for _, i := range heaviest[:min(8, len(heaviest))] {
		v.Weights = append(v.Weights, fmt.Sprintf("%+.2f %s", model.weight[i], columns[i].name))
	}
}

// fewest are the tasks of which a feature must say something: of a handful, chance alone finds two that fit.
const fewest = 12

func involved(all []scored) int {
	tasks := map[int]bool{}
	for _, p := range all {
		tasks[p.i], tasks[p.j] = true, true
	}
	return len(tasks)
}

func find(name string, all []scored, sign float64, tasks int, alpha float64, rules Rules, rng *rand.Rand) (Finding, bool) {
	c := newCurve(all, sign)
	f := Finding{Name: name, AUC: c.auc(nil), Pairs: len(all)}
	if math.IsNaN(f.AUC) || involved(all) < fewest {
		return f, false
	}
	if f.AUC > rules.Limit {
		f.Lower = c.lower(tasks, alpha, rng)
	}
	return f, true
}

func pairsOf(tasks []*Task, which []int) []pair {
	consumers := make([]int, len(which))
	for i, t := range which {
		consumers[i] = tasks[t].Consumer
	}
	return pairs(consumers)
}

func mixed(ps []pair) bool {
	return slices.ContainsFunc(ps, func(p pair) bool { return p.same }) && slices.ContainsFunc(ps, func(p pair) bool { return !p.same })
}

func scores(c column, ps []pair, which []int) (out []scored) {
	for _, p := range ps {
		if s := c.score(which[p.i], which[p.j]); !math.IsNaN(s) {
			out = append(out, scored{p, s})
		}
	}
	return out
}

func rows(columns []column, ps []pair, which []int) [][]float64 {
	out := make([][]float64, len(ps))
	for i, p := range ps {
		out[i] = make([]float64, len(columns))
		for f, c := range columns {
			out[i][f] = c.score(which[p.i], which[p.j])
		}
	}
	return out
}

// features are all ways in which tasks can be more or less alike. What is the same in all tasks tells nothing, and is returned by name.
func features(tasks []*Task) (columns []column, same []string) {
	numbers, texts, times := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, t := range tasks {
		for n := range t.Numbers {
			numbers[n] = true
		}
		for n := range t.Texts {
			texts[n] = true
		}
		for n := range t.Times {
			times[n] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		values := collect(tasks, func(t *Task) (float64, bool) { v, ok := t.Numbers[name]; return v, ok })
		if constant(values) {
			same = append(same, name)
			continue
		}
		columns = append(columns, number(name, values))
		columns = append(columns, number(name+", against the clock", against(tasks, values)))
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		different := map[string]bool{}
		for _, t := range tasks {
			if s, ok := t.Texts[name]; ok {
				different[s] = true
			}
		}
		if len(different) < 2 {
			same = append(same, name)
			continue
		}
		columns = append(columns, textual(tasks, name)...)
	}
	for _, name := range slices.Sorted(maps.Keys(times)) {
		for _, within := range nearby {
			columns = append(columns, column{fmt.Sprintf("moments of %s within %v", name, within),
				func(i, j int) float64 { return together(tasks[i].Times[name], tasks[j].Times[name], within) }, true})
		}
	}
	return append(columns, presence(tasks, numbers, texts, times)...), same
}

// presence compares tasks by whether something was seen of them at all: what only one consumer ever says links its tasks, however equal it is. What is there and
// missing in the same tasks is one feature, named by the first of them.
func presence(tasks []*Task, numbers, texts, times map[string]bool) (columns []column) {
	known := map[string]bool{}
	add := func(name string, in func(t *Task) bool) {
		there := make([]byte, len(tasks))
		for i, t := range tasks {
			if in(t) {
				there[i] = 1
			}
		}
		if known[string(there)] || bytes.Count(there, []byte{1}) == len(tasks) {
			return
		}
		known[string(there)] = true
		columns = append(columns, column{name + ", whether there", func(i, j int) float64 {
			if there[i] == there[j] {
				return 1
			}
			return 0
		}, false})
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		add(name, func(t *Task) bool { _, ok := t.Texts[name]; return ok })
	}
	for _, name := range slices.Sorted(maps.Keys(times)) {
		add(name, func(t *Task) bool { return len(t.Times[name]) > 0 })
	}
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		add(name, func(t *Task) bool { _, ok := t.Numbers[name]; return ok })
	}
	return columns
}

func collect(tasks []*Task, of func(*Task) (float64, bool)) []float64 {
	out := make([]float64, len(tasks))
	for i, t := range tasks {
		v, ok := of(t)
		if !ok {
			v = math.NaN()
		}
		out[i] = v
	}
	return out
}

func constant(values []float64) bool {
	first := math.NaN()
	for _, v := range values {
		if math.IsNaN(first) {
			first = v
		} else if !math.IsNaN(v) && v != first {
			return false
		}
	}
	return true
}

// number compares values by how near they are.
func number(name string, values []float64) column {
	return column{name, func(i, j int) float64 { return -math.Abs(values[i] - values[j]) }, false}
}

// against takes from values what they follow the time by, the same for all tasks: what is left of a clock is how wrong it goes, and of a counter who counts.
func against(tasks []*Task, values []float64) []float64 {
	var n, t, v, tt, tv float64
	for i, y := range values {
		if !math.IsNaN(y) {
			x := tasks[i].At.Sub(tasks[0].At).Seconds()
			n, t, v, tt, tv = n+1, t+x, v+y, tt+x*x, tv+x*y
		}
	}
	slope := 0.0
	if d := n*tt - t*t; d > 0 {
		slope = (n*tv - t*v) / d
	}
	out := make([]float64, len(values))
	for i, y := range values {
		out[i] = y - slope*tasks[i].At.Sub(tasks[0].At).Seconds()
	}
	return out
}

// textual compares texts as such, and long ones also by what they have in common and by the number that their first bytes are.
func textual(tasks []*Task, name string) []column {
	both := func(i, j int, f func(a, b string) float64) float64 {
		a, ok := tasks[i].Texts[name]
		b, also := tasks[j].Texts[name]
		if !ok || !also {
			return math.NaN()
		}
		return f(a, b)
	}
	out := []column{{name + ", whether equal", func(i, j int) float64 {
		return both(i, j, func(a, b string) float64 {
			if a == b {
				return 1
			}
			return 0
		})
	}, false}}
	const long = 8
	if !slices.ContainsFunc(tasks, func(t *Task) bool { return len(t.Texts[name]) >= long }) {
		return out
	}
	first := collect(tasks, func(t *Task) (float64, bool) {
		s, ok := t.Texts[name]
		v := 0.0
		for i := range 6 {
			v *= 256
			if i < len(s) {
				v += float64(s[i])
			}
		}
		return v, ok
	})
	return append(out,
		column{name + ", its beginning", func(i, j int) float64 {
			return both(i, j, func(a, b string) float64 {
				n := 0
				for n < min(len(a), len(b)) && a[n] == b[n] {
					n++
				}
				return float64(n)
			})
		}, false},
		column{name + ", what is equal in it", func(i, j int) float64 {
			return both(i, j, func(a, b string) float64 {
				n := 0
				for k := range min(len(a), len(b)) {
					if a[k] == b[k] {
						n++
					}
				}
				return float64(n) / float64(max(1, len(a), len(b)))
			})
		}, false},
		number(name+", as a number", first), number(name+", as a number against the clock", against(tasks, first)))
}

// nearby is how far apart moments may be that are compared: who works on several tasks at a time may do things for them together, which among all pairs would drown.
var nearby = []time.Duration{time.Second, 10 * time.Second}

// together says how near the nearest two moments are, if they are nearby: nearer is more like one consumer.
func together(a, b []time.Time, within time.Duration) float64 {
	best := within
	for _, x := range a {
		for _, y := range b {
			best = min(best, x.Sub(y).Abs())
		}
	}
	if best == within {
		return math.NaN()
	}
	return -class(best)
}
