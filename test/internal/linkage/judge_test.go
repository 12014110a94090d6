//go:build !race

// The judge is arithmetic in one goroutine: the race detector has nothing to find there, and takes ten times as long over it.

package linkage

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// noise makes interleaved tasks that say nothing of their consumers; plant adds what does.
func noise(seed uint64, consumers, each int, plant func(t *Task, r *rand.Rand)) (tasks []*Task) {
	r := rand.New(rand.NewPCG(seed, 7))
	now := time.Unix(1_000_000, 0)
	for _, i := range r.Perm(consumers * each) {
		now = now.Add(time.Duration(r.ExpFloat64() * float64(time.Second)))
		t := newTask(fmt.Sprint(i), i%consumers, now)
		id := make([]byte, 16)
		for k := range id {
			id[k] = byte(r.Uint32())
		}
		t.Texts["id"], t.Texts["version"] = string(id), "1"
		t.Numbers["size"], t.Numbers["gap"] = float64(r.IntN(4)), class(time.Duration(r.ExpFloat64()*float64(time.Second)))
		t.Times["heard"] = []time.Time{now.Add(time.Duration(r.IntN(1000)) * time.Millisecond)}
		if plant != nil {
			plant(t, r)
		}
		tasks = append(tasks, t)
	}
	return tasks
}

func judged(t *testing.T, tasks []*Task, rules Rules) *Verdict {
	t.Helper()
	v, err := Judge(tasks, rules)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNothingIsFoundInNoise(t *testing.T) {
	for seed := range uint64(4) {
		v := judged(t, noise(seed, 4, 36, nil), Promise)
		if links := v.Links(); len(links) > 0 {
			t.Errorf("seed %d: %v", seed, links)
		}
		if len(v.Same) == 0 || v.Same[0] != "version" {
			t.Errorf("the same in all is %v", v.Same)
		}
	}
}

func TestWhatIsPlantedIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(t *Task, r *rand.Rand)
		found string
	}{
		"an id that repeats":            {func(t *Task, _ *rand.Rand) { t.Texts["key"] = fmt.Sprintf("key of consumer %d", t.Consumer) }, "key, whether equal"},
		"an id whose beginning repeats": {func(t *Task, _ *rand.Rand) { t.Texts["id"] = fmt.Sprint(t.Consumer) + t.Texts["id"] }, "id, its beginning"},
		"a part in the middle":          {func(t *Task, _ *rand.Rand) { t.Texts["id"] += strings.Repeat(fmt.Sprint(t.Consumer), 8) }, "id, what is equal in it"},
		"a size":                        {func(t *Task, r *rand.Rand) { t.Numbers["size"] = float64(100*t.Consumer + r.IntN(120)) }, "size"},
		"a clock that goes a little wrong": {func(t *Task, r *rand.Rand) {
			t.Numbers["clock"] = t.At.Sub(time.Unix(0, 0)).Seconds() + 0.2*float64(t.Consumer) + 0.1*r.Float64()
		}, "clock, against the clock"},
		"a word that one consumer alone says": {func(t *Task, _ *rand.Rand) {
			if t.Consumer == 0 {
				t.Texts["word"] = "true"
			}
		}, "word, whether there"},
		"a version of some": {func(t *Task, _ *rand.Rand) { t.Texts["version"] = fmt.Sprint(1 + t.Consumer/2) }, "version, whether equal"},
		"things done together": {func(t *Task, r *rand.Rand) {
			tick := time.Duration(t.Consumer) * 700 * time.Millisecond // each has a tick of its own, every three seconds
			t.Times["heard"] = []time.Time{t.At.Add(time.Duration(r.ExpFloat64() * float64(5*time.Second))).Truncate(3 * time.Second).Add(tick)}
		}, "moments of heard within 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			v := judged(t, noise(1, 4, 36, c.plant), Promise)
			for _, l := range v.Links() {
				if l.Name == c.found {
					return
				}
			}
			t.Errorf("%q is not found:\n%v", c.found, v)
		})
	}
}

// Features of which each says little are found together.
func TestTheClassifierAddsUp(t *testing.T) {
	v := judged(t, noise(1, 4, 50, func(t *Task, r *rand.Rand) {
		for i := range 12 {
			t.Numbers[fmt.Sprint("weak ", i)] = 0.9*float64((t.Consumer*(i+3))%4) + 2*r.NormFloat64()
		}
	}), Promise)
	best := 0.0
	for _, f := range v.Findings {
		best = max(best, f.AUC)
	}
	if v.Combined.AUC < best+0.02 || v.Combined.Lower <= 0.5 {
		t.Errorf("all together tell %v, and one alone %.3f", v.Combined, best)
	}
}

func TestAUC(t *testing.T) {
	for _, c := range []struct {
		scores  []float64
		same    []bool
		weights []float64
		want    float64
	}{
		{[]float64{3, 1, 2}, []bool{true, false, false}, nil, 1},
		{[]float64{1, 2, 3}, []bool{true, false, false}, nil, 0},
		{[]float64{2, 2, 2}, []bool{true, false, false}, nil, 0.5},
		{[]float64{2, 1, 3}, []bool{true, false, false}, nil, 0.5},
		{[]float64{2, 1, 3}, []bool{true, false, false}, []float64{1, 3, 1}, 0.5}, // of tasks 0-1, 0-2, 1-2: 1×3, 1×1, 3×1
		{[]float64{2, 2}, []bool{true, true}, nil, math.NaN()},
	} {
		var ps []scored
		for k, ij := range [][2]int{{0, 1}, {0, 2}, {1, 2}}[:len(c.scores)] {
			ps = append(ps, scored{pair{ij[0], ij[1], c.same[k]}, c.scores[k]})
		}
		got := newCurve(ps, 1).auc(c.weights)
		if c.weights != nil {
			c.want = 0.25 // the other pairs weigh 1 and 3: the lighter one scores less
		}
		if got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
