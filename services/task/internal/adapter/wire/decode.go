package wire

import (
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Bounds of what is decoded. An event as a whole is bounded by the broker.
const (
	maxSize     = 1 << 50 // bytes: what any size field may say
	maxType     = 64
	maxReason   = 64
	maxMessage  = 2048
	maxCID      = 128
	maxKey      = 4096 // an age hybrid recipient has about 1,960 letters
	maxRefs     = 4096
	maxPeers    = 64
	maxAddress  = 512
	maxDuration = 10 * 365 * 24 * time.Hour
)

// Decode reads an event's payload.
func (Codec) Decode(t domain.EventType, payload []byte) (domain.Body, error) {
	d := decoders[t]
	if d == nil {
		return nil, fmt.Errorf("event type %d is not about tasks", t)
	}
	c := &checker{}
	b := d(c, payload)
	if c.err != nil {
		return nil, c.err
	}
	return b, nil
}

// decoder reads one message; what is wrong is in the checker afterwards.
type decoder func(c *checker, payload []byte) domain.Body

var decoders = map[domain.EventType]decoder{
	domain.TypeSubmission:      submission,
	domain.TypeForceSubmission: forceSubmission,
	domain.TypeAccepted:        accepted,
	domain.TypeRedirected:      redirected,
	domain.TypeRefused:         refused,
	domain.TypeProgress:        progress,
	domain.TypeLog:             logEvent,
	domain.TypeResult:          result,
	domain.TypeFailure:         failure,
	domain.TypeCancel:          cancel,
	domain.TypeQuery:           query,
	domain.TypeCollected:       collected,
	domain.TypeStatus:          status,
	domain.TypeAnnouncement:    announcement,
	domain.TypeReplicaRequest:  replicaRequest,
	domain.TypeReplicaAnswer:   replicaAnswer,
	domain.TypeReplicas:        replicas,
	domain.TypeReplicaResult:   replicaResult,
}

// checker keeps the first thing that is wrong.
type checker struct{ err error }

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *checker) unmarshal(b []byte, m proto.Message) {
	if err := proto.Unmarshal(b, m); err != nil {
		c.fail("the payload is not a %s", m.ProtoReflect().Descriptor().Name())
	}
}

func (c *checker) id(name, v string) string {
	if !domain.ValidID(v) {
		c.fail("%s is not 32 lowercase hex digits", name)
	}
	return v
}

func (c *checker) attempt(v uint32) uint32 {
	if v == 0 || v > 1<<20 {
		c.fail("attempt is %d: it must be 1 to 1048576", v)
	}
	return v
}

func (c *checker) size(name string, v uint64) int64 {
	if v > maxSize {
		c.fail("%s is %d: it may be %d at most", name, v, int64(maxSize))
		return 0
	}
	return int64(v)
}

func (c *checker) text(name, v string, limit int) string {
	if len(v) > limit || !utf8.ValidString(v) {
		c.fail("%s has %d bytes: it must be text of at most %d", name, len(v), limit)
		return ""
	}
	return v
}

func (c *checker) peer(name, v string) string {
	if !domain.ValidPeer(v) {
		c.fail("%s is not a peer id", name)
	}
	return v
}

func (c *checker) peers(name string, vs []string, limit int) []string {
	if len(vs) > limit {
		c.fail("%s has %d entries: it may have %d", name, len(vs), limit)
		return nil
	}
	for _, v := range vs {
		c.peer(name, v)
	}
	return vs
}

func (c *checker) hash(name string, b []byte) domain.Hash {
	h, ok := domain.HashOf(b)
	if !ok {
		c.fail("%s has %d bytes: a SHA-256 has 32", name, len(b))
	}
	return h
}

func (c *checker) hashOrNone(name string, b []byte) domain.Hash {
	if len(b) == 0 {
		return domain.Hash{}
	}
	return c.hash(name, b)
}

// upper checks a machine-readable word.
func (c *checker) upper(name, v string) string {
	if len(v) > maxReason {
		c.fail("%s has %d bytes: it may have %d", name, len(v), maxReason)
		return ""
	}
	for i := range len(v) {
		if b := v[i]; (b < 'A' || b > 'Z') && (b < '0' || b > '9') && b != '_' {
			c.fail("%s is not UPPER_SNAKE", name)
			return ""
		}
	}
	return v
}

func (c *checker) duration(name string, d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	v := d.AsDuration()
	if d.CheckValid() != nil || v < 0 || v > maxDuration {
		c.fail("%s is not a duration from 0 to 10 years", name)
		return 0
	}
	return v
}

func (c *checker) limits(l *eventv1.Limits) domain.Limits {
	return domain.Limits{Time: c.duration("limits.time", l.GetTime()), Memory: c.size("limits.memory", l.GetMemory()), Output: c.size("limits.output", l.GetOutput())}
}

func (c *checker) usage(u *eventv1.Usage) domain.Usage {
	return domain.Usage{Wall: c.duration("usage.wall", u.GetWall()), CPU: c.duration("usage.cpu", u.GetCpu()),
		PeakMemory: c.size("usage.peak_memory", u.GetPeakMemory()), Output: c.size("usage.output", u.GetOutput())}
}

func (c *checker) refs(rs []*eventv1.TaskRef, zero bool) []domain.Ref {
	if len(rs) == 0 || len(rs) > maxRefs {
		c.fail("%d tasks are named: 1 to %d may be", len(rs), maxRefs)
		return nil
	}
	out := make([]domain.Ref, len(rs))
	for i, r := range rs {
		out[i] = c.ref(r.GetTaskId(), r.GetAttempt(), zero)
	}
	return out
}

func (c *checker) ref(id string, attempt uint32, zero bool) domain.Ref {
	if !zero || attempt != 0 {
		c.attempt(attempt)
	}
	return domain.Ref{TaskID: c.id("task_id", id), Attempt: attempt}
}

// fraction refuses what is no part of a whole, NaN included.
func (c *checker) fraction(name string, v float64) float64 {
	if !(v >= 0 && v <= 1) {
		c.fail("%s is %v: it must be from 0 to 1", name, v)
	}
	return v
}

func (c *checker) count(v uint64) uint32 { return uint32(min(v, math.MaxInt32)) }
