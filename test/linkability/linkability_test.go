package linkability

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/linkage"
)

// Two providers who tell each other all that they see cannot tell which tasks are of one consumer. That the shards of a job which leave from one persona are
// told at once shows that they would see it. With personas off everything would leave from one persona, as in such a job.
func TestTasksAreUnlinkable(t *testing.T) {
	if !long() {
		t.Skip("it takes some minutes: SHALLOT_LONG=1, as in `make test-long`; TestNothingRepeats is the short one")
	}
	w := start(t, 4)
	w.tasks(t, 52, 900*time.Millisecond, kinds{lasting: 0.25, referring: 0.15})
	w.settled(t, 90*time.Second)
	tasks := w.seen(t, "tasks")
	v, err := linkage.Judge(tasks, linkage.Promise)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("personas as they are: %v\nthe same in all tasks: %s", v, strings.Join(v.Same, "; "))
	for _, l := range v.Links() {
		t.Errorf("tasks of one consumer are told by this: %v", l)
	}
	w.jobs(t, 50)
	control(t, w, linkage.Promise)
}

func control(t *testing.T, w *world, rules linkage.Rules) {
	t.Helper()
	v, err := linkage.Judge(w.seen(t, "control"), rules)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("all tasks of a consumer from one persona: %v", v)
	if v.Best().AUC <= 0.9 || rules.Learn && v.Combined.AUC <= 0.9 {
		t.Errorf("without personas pairs are told with %v, and with %v of all features together: the test would not see a link", v.Best(), v.Combined)
	}
}

// The same in small, for what would link tasks at once: an id, a key or a size that repeats, a counter.
func TestNothingRepeats(t *testing.T) {
	gross := linkage.Rules{Limit: 0.8, Error: 0.01, Seed: 1}
	w := start(t, 2)
	began := time.Now()
	for _, c := range []struct {
		name   string
		each   int
		of     kinds
		differ []string
	}{
		{"small", 12, kinds{}, linkage.MustDiffer},
		{"referring", 8, kinds{referring: 1}, slices.DeleteFunc(append(slices.Clone(linkage.MustDiffer), "content 1"), func(name string) bool {
			return strings.HasSuffix(name, ": ciphertext") // the whole payload may be content
		})},
	} {
		w.tasks(t, c.each, 400*time.Millisecond, c.of)
		w.collected(t, time.Minute)
		tasks := w.seen(t, c.name)
		for _, name := range linkage.Repeated(tasks, c.differ) {
			t.Errorf("%s: it is not another one in every task: %s", c.name, name)
		}
		v, err := linkage.Judge(tasks, gross)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s, after %v: %v", c.name, time.Since(began).Round(time.Second), v)
		for _, l := range v.Links() {
			t.Errorf("%s: tasks of one consumer are told by this: %v", c.name, l)
		}
	}
	w.jobs(t, 12)
	control(t, w, gross)
}
