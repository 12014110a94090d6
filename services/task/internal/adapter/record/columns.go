package record

import (
	"strings"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Micros is a time as stores have it: microseconds since 1970, 0 for none.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Replicated is the column by which replicas are found after a start: 1 for one of another provider that is kept here, 2 for what others are to keep, else 0.
func Replicated(e *domain.Entry) int64 {
	switch {
	case e.IsReplica() && !e.Collected:
		return 1
	case e.Replicates():
		return 2
	}
	return 0
}

// SearchTask is what a list's text is looked for in.
func SearchTask(t *domain.Task) string {
	if len(t.Labels) == 0 && t.Error == nil {
		return t.ID
	}
	var b strings.Builder
	b.WriteString(t.ID)
	for k, v := range t.Labels {
		b.WriteString("\n" + k + "=" + v)
	}
	writeFailure(&b, t.Error)
	return strings.ToLower(b.String())
}

// SearchEntry is SearchTask for an entry of the journal.
func SearchEntry(e *domain.Entry) string {
	if e.What == "" && (e.Outcome == nil || e.Outcome.Reason == "") {
		return e.TaskID
	}
	var b strings.Builder
	b.WriteString(e.TaskID + "\n" + e.What)
	if e.Outcome != nil {
		writeFailure(&b, &domain.Failure{Reason: e.Outcome.Reason, Message: e.Outcome.Message})
	}
	return strings.ToLower(b.String())
}

func writeFailure(b *strings.Builder, f *domain.Failure) {
	if f != nil {
		b.WriteString("\n" + f.Reason + "\n" + f.Message)
	}
}
