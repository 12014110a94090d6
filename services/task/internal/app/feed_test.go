package app_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/app"
)

func taskID(i int) string { return fmt.Sprintf("%032x", i) }

func TestAFeedHasEachTaskOnce(t *testing.T) {
	w := app.NewWatchers()
	w.Tell(taskID(0)) // before
	f := w.Feed(4)
	for _, key := range []string{taskID(2), taskID(1), taskID(2), "queue", "job:" + taskID(3)} {
		w.Tell(key)
	}
	<-f.Changed()
	if ids, missed := f.Take(); !slices.Equal(ids, []string{taskID(2), taskID(1)}) || missed {
		t.Errorf("got %v, %v", ids, missed)
	}
	if ids, missed := f.Take(); len(ids) > 0 || missed {
		t.Errorf("again: %v, %v", ids, missed)
	}
	w.Tell(taskID(2))
	if ids, _ := f.Take(); len(ids) != 1 {
		t.Errorf("a later change: %v", ids)
	}
}

func TestAFeedIsBoundedAndSaysWhatItMissed(t *testing.T) {
	w := app.NewWatchers()
	f := w.Feed(4)
	for i := range 1000 {
		w.Tell(taskID(i))
	}
	if ids, missed := f.Take(); len(ids) > 0 || !missed {
		t.Errorf("got %v, %v", ids, missed)
	}
	w.Tell(taskID(7))
	if ids, missed := f.Take(); len(ids) != 1 || missed {
		t.Errorf("afterwards: %v, %v", ids, missed)
	}
	f.Close()
	w.Tell(taskID(8))
	if ids, _ := f.Take(); len(ids) > 0 {
		t.Error("it goes on after its end")
	}
	for range app.MaxFeeds {
		f = w.Feed(1)
	}
	if w.Feed(1) != nil {
		t.Error("there is no bound")
	}
	if f.Close(); w.Feed(1) == nil {
		t.Error("one that was closed is counted")
	}
}
