package linkage

import (
	"math"
	"math/rand/v2"
	"slices"
)

// pair is two tasks, i < j, of which it is known whether they are of one consumer.
type pair struct {
	i, j int
	same bool
}

// pairs are all pairs of tasks.
func pairs(consumers []int) (out []pair) {
	for i := range consumers {
		for j := i + 1; j < len(consumers); j++ {
			out = append(out, pair{i, j, consumers[i] == consumers[j]})
		}
	}
	return out
}

// scored is a pair that a feature says something of: more for more alike.
type scored struct {
	pair
	score float64
}

// curve is the pairs of one feature in the order of their scores, so that the area under its curve can be had for any weights of tasks in one pass.
type curve struct {
	pairs []scored
	sign  float64
}

func newCurve(ps []scored, sign float64) curve {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b scored) int {
		switch {
		case a.score < b.score:
			return -1
		case a.score > b.score:
			return 1
		}
		return 0
	})
	return curve{ps, sign}
}

// auc is the chance that a pair of one consumer scores higher than another pair, half of it where they score the same. weights are of the tasks; nil for 1 each.
// It is NaN where there are no pairs of both kinds.
func (c curve) auc(weights []float64) float64 {
	var below, same, other, wins float64 // below: weight of other pairs that score less
	for at := 0; at < len(c.pairs); {
		var s, o float64
		end := at
		for ; end < len(c.pairs) && c.pairs[end].score == c.pairs[at].score; end++ {
			p := c.pairs[end]
			w := 1.0
			if weights != nil {
				w = weights[p.i] * weights[p.j]
			}
			if p.same {
				s += w
			} else {
				o += w
			}
		}
		wins += s * (below + o/2)
		below, same, other, at = below+o, same+s, other+o, end
	}
	if same == 0 || other == 0 {
		return math.NaN()
	}
	a := wins / (same * other)
	if c.sign < 0 {
		return 1 - a
	}
	return a
}

// draws are how often tasks are drawn anew.
const draws = 1000

// lower is the bound above which the area lies with the probability 1-alpha, by drawing tasks anew with repetition. A pair counts as often as both of its tasks
// were drawn; a task and itself are no pair. alpha is far smaller than what so many draws show, so the bound follows from how much they vary; where that would be
// too good, as with few pairs, it is one of the lowest draws.
func (c curve) lower(tasks int, alpha float64, rng *rand.Rand) float64 {
	areas := make([]float64, 0, draws)
	weights := make([]float64, tasks)
	for range draws {
		clear(weights)
		for range tasks {
			weights[rng.IntN(tasks)]++
		}
		if a := c.auc(weights); !math.IsNaN(a) {
			areas = append(areas, a)
		}
	}
	if len(areas) < draws/2 {
		return 0 // hardly anything is known of it
	}
	slices.Sort(areas)
	var sum, squares float64
	for _, a := range areas {
		sum, squares = sum+a, squares+a*a
	}
	n := float64(len(areas))
	deviation := math.Sqrt(max(0, squares/n-sum*sum/n/n))
	return max(0, min(c.auc(nil)-math.Sqrt2*math.Erfinv(1-2*alpha)*deviation, areas[int(max(alpha*n, 2))]))
}

// logistic weighs all features together. Features are alike in that a higher value says that two tasks are of one consumer or that they are not, steadily, so a
// weighted sum is what there is to learn; its weights can be read, and with some thousand pairs of a hundred tasks it overfits less than what remembers pairs.
type logistic struct {
	mean, scale, weight []float64
	bias                float64
}

// Of the descent.
const (
	steps = 300
	rate  = 0.5
	decay = 1e-3
)

// train fits it to rows of feature values; NaN is a value that is not there. The kinds of pairs weigh the same together, however many there are.
func train(rows [][]float64, same []bool) *logistic {
	n := len(rows[0])
	l := &logistic{mean: make([]float64, n), scale: make([]float64, n), weight: make([]float64, n)}
	for f := range n {
		l.mean[f], l.scale[f] = moments(rows, f)
	}
	x := make([][]float64, len(rows))
	positive := 0.0
	for i, r := range rows {
		x[i] = l.normal(r)
		if same[i] {
			positive++
		}
	}
	total := float64(len(rows))
	gradient := make([]float64, n)
	for range steps {
		clear(gradient)
		bias := 0.0
		for i, r := range x {
			want, w := 0.0, 0.5/(total-positive)
			if same[i] {
				want, w = 1, 0.5/positive
			}
			d := (l.chance(r) - want) * w
			bias += d
			for f, v := range r {
				gradient[f] += d * v
			}
		}
		l.bias -= rate * bias
		for f := range l.weight {
			l.weight[f] -= rate * (gradient[f] + decay*l.weight[f])
		}
	}
	return l
}

func moments(rows [][]float64, f int) (mean, deviation float64) {
	n, sum, squares := 0.0, 0.0, 0.0
	for _, r := range rows {
		if !math.IsNaN(r[f]) {
			n, sum, squares = n+1, sum+r[f], squares+r[f]*r[f]
		}
	}
	if n == 0 {
		return 0, 0
	}
	mean = sum / n
	return mean, math.Sqrt(max(0, squares/n-mean*mean))
}

// normal has each feature vary about zero by one or so. What is not there is zero, and nothing weighs more than a few times the usual.
func (l *logistic) normal(row []float64) []float64 {
	out := make([]float64, len(row))
	for f, v := range row {
		if l.scale[f] > 1e-12 && !math.IsNaN(v) {
			out[f] = min(max((v-l.mean[f])/l.scale[f], -8), 8)
		}
	}
	return out
}

func (l *logistic) chance(normal []float64) float64 {
	z := l.bias
	for f, v := range normal {
		z += l.weight[f] * v
	}
	return 1 / (1 + math.Exp(-z))
}

// score is higher for pairs that are more like those of one consumer.
func (l *logistic) score(row []float64) float64 { return l.chance(l.normal(row)) }
