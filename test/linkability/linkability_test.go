package linkability

import (
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
	w.tasks(t, 52, 900*time.Millisecond, 0.25)
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
	w.tasks(t, 12, 400*time.Millisecond, 0)
	w.collected(t, time.Minute)
	tasks := w.seen(t, "small")
	for _, name := range linkage.Repeated(tasks, linkage.MustDiffer) {
		t.Errorf("it is not another one in every task: %s", name)
	}
	v, err := linkage.Judge(tasks, gross)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("after %v: %v", time.Since(began).Round(time.Second), v)
	for _, l := range v.Links() {
		t.Errorf("tasks of one consumer are told by this: %v", l)
	}
	w.jobs(t, 12)
	control(t, w, gross)
}
