package external

import (
	"maps"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/shallot-net/shallot/kit/fault"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// Bounds of what an executor says of itself. They are those of an announcement: one that is not well formed would be refused by
// every peer, and take the provider's other task types with it.
const (
	maxAbout      = 64 << 10 // bytes of the whole description
	maxVersion    = 64
	maxAttributes = 14 // two are this package's own
	maxKey        = 64
	maxValue      = 256
	maxWords      = 512     // bytes of all names and values: an announcement has 16 KiB for all of a provider's types
	maxNeed       = 1 << 50 // bytes of memory
	maxWidth      = 1024
)

// Attributes that every external executor has in announcements.
const (
	attrKind   = "executor"
	attrMemory = "min_memory"
)

const reasonAbout = "EXECUTOR_INVALID"

// about is what an executor is.
type about struct {
	capability app.Capability
	width      int // runs that it takes side by side
}

func (a *about) same(b *about) bool {
	x, y := a.capability, b.capability
	return a.width == b.width && x.Version == y.Version && x.MinMemory == y.MinMemory && maps.Equal(x.Attributes, y.Attributes)
}

// read checks a description of an executor that is configured for this type.
func read(d *executorv1.DescribeResponse, taskType string) (*about, error) {
	switch {
	case d.GetType() != taskType:
		return nil, fault.FailedPrecondition(reasonAbout, "it says that it executes %s, and is configured for %q", shown(d.GetType()), taskType)
	case len(d.GetVersion()) > maxVersion || !printable(d.GetVersion()):
		return nil, fault.FailedPrecondition(reasonAbout, "its version %s is not at most %d printable bytes", shown(d.GetVersion()), maxVersion)
	case len(d.GetAttributes()) > maxAttributes:
		return nil, fault.FailedPrecondition(reasonAbout, "it has %d attributes, and may have %d", len(d.GetAttributes()), maxAttributes)
	case d.GetMemory() > maxNeed:
		return nil, fault.FailedPrecondition(reasonAbout, "it needs %d bytes of memory for one run, which no machine has", d.GetMemory())
	}
	attributes, words := map[string]string{attrKind: "external"}, 0
	for k, v := range d.GetAttributes() {
		if k == "" || len(k) > maxKey || len(v) > maxValue || !printable(k) || !printable(v) {
			return nil, fault.FailedPrecondition(reasonAbout, "its attribute %s is not a printable name of 1 to %d and a value of at most %d bytes", shown(k), maxKey, maxValue)
		}
		if k == attrKind || k == attrMemory {
			return nil, fault.FailedPrecondition(reasonAbout, "its attribute %q is one that the provider sets", k)
		}
		if words += len(k) + len(v); words > maxWords {
			return nil, fault.FailedPrecondition(reasonAbout, "its attributes have more than %d bytes together", maxWords)
		}
		attributes[k] = v
	}
	if d.GetMemory() > 0 {
		attributes[attrMemory] = strconv.FormatUint(d.GetMemory(), 10)
	}
	return &about{width: int(min(max(d.GetConcurrency(), 1), maxWidth)), capability: app.Capability{Type: taskType, Version: d.GetVersion(),
		Attributes: attributes, MinMemory: int64(d.GetMemory())}}, nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// shown is foreign text as an error names it.
func shown(s string) string {
	if len(s) > maxKey {
		return strconv.Quote(s[:maxKey]) + "…"
	}
	return strconv.Quote(s)
}
