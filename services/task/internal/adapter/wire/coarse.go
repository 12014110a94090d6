package wire

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/shallot-net/shallot/kit/padding"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Coarse is the Codec of an anonymous node. Figures of a machine and of what it has to do leave the node in classes that many share, and texts that may hold
// such figures do not leave it: "26.3 ms, 4.42 s of CPU" under a signature is as good as a serial number. What comes in is read as ever.
//
//	time        the next power of two of seconds, 1 s at the least
//	memory      the next power of two, 16 MiB at the least
//	output      the class of its padding
//	positions   the next power of two
//	progress    sixteenths, rounded down
//
// What is 0 stays so: it was not measured.
type Coarse struct{ Codec }

var _ app.Codec = Coarse{}

// Encode is the payload of an event.
func (c Coarse) Encode(b domain.Body) []byte { return c.Codec.Encode(coarse(b)) }

// Decode reads the payload of an event. What another anonymous node has left out is said to be so.
func (c Coarse) Decode(t domain.EventType, payload []byte) (domain.Body, error) {
	b, err := c.Codec.Decode(t, payload)
	switch b := b.(type) {
	case *domain.RefusedEvent:
		b.Message = cmp.Or(b.Message, untold)
	case *domain.RedirectedEvent:
		b.Reason = cmp.Or(b.Reason, untold)
	}
	return b, err
}

const untold = "an anonymous provider says no more"

// EncodeResultHeader is a result's header, without its length.
func (c Coarse) EncodeResultHeader(h *app.ResultHeader) []byte {
	out := *h
	out.Usage = coarseUsage(h.Usage)
	return c.Codec.EncodeResultHeader(&out)
}

// announced are the reasons of refusals whose texts say nothing but what the provider announces to everybody: its types, and the most that it grants.
var announced = map[string]bool{"TYPE_UNKNOWN": true, "LIMITS_TOO_HIGH": true}

// coarse returns a body as others may know it. b is not changed: this node's own users see it as it is.
func coarse(b domain.Body) domain.Body {
	switch b := b.(type) {
	case *domain.ResultEvent:
		return coarseResult(b)
	case *domain.FailureEvent:
		return coarseFailure(b)
	case *domain.AcceptedEvent:
		out := *b
		out.QueuePosition = coarseCount(b.QueuePosition)
		return &out
	case *domain.RefusedEvent:
		out := *b
		if out.RetryAfter = coarseTime(b.RetryAfter); !announced[b.Reason] {
			out.Message = ""
		}
		return &out
	case *domain.RedirectedEvent:
		out := *b
		out.Reason = "" // it compares scores
		return &out
	case *domain.ProgressEvent:
		out := &domain.ProgressEvent{Tasks: slices.Clone(b.Tasks)}
		for i := range out.Tasks {
			e := &out.Tasks[i]
			e.QueuePosition = coarseCount(e.QueuePosition)
			if p := e.Progress; p != nil {
				e.Progress = &domain.Progress{Fraction: float64(int(p.Fraction*16)) / 16, Text: p.Text}
			}
		}
		return out
	case *domain.ReplicaRequestEvent:
		out := *b
		if b.Result != nil {
			out.Result = coarseResult(b.Result)
		}
		if b.Failure != nil {
			out.Failure = coarseFailure(b.Failure)
		}
		return &out
	}
	return b
}

func coarseResult(b *domain.ResultEvent) *domain.ResultEvent {
	out := *b
	out.Usage = coarseUsage(b.Usage)
	return &out
}

func coarseFailure(b *domain.FailureEvent) *domain.FailureEvent {
	out := *b
	out.Usage = coarseUsage(b.Usage)
	return &out
}

func coarseUsage(u domain.Usage) domain.Usage {
	out := domain.Usage{Wall: coarseTime(u.Wall), CPU: coarseTime(u.CPU)}
	if u.PeakMemory > 0 {
		out.PeakMemory = int64(upToPower(uint64(max(u.PeakMemory, 16<<20))))
	}
	if u.Output > 0 {
		out.Output = padding.Size(min(u.Output, padding.Limit))
	}
	return out
}

func coarseTime(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	d = min(d, 1<<32*time.Second)
	return time.Duration(upToPower(uint64((d+time.Second-1)/time.Second))) * time.Second
}

func coarseCount(n uint32) uint32 { return uint32(min(upToPower(uint64(n)), 1<<31)) }

// upToPower is the smallest power of two that is not below n; 0 for 0.
func upToPower(n uint64) uint64 {
	if n == 0 {
		return 0
	}
	return 1 << min(bits.Len64(n-1), 62)
}
