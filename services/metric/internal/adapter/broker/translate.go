// Package broker is metric's view of its node's broker: what it says to other nodes and what it hears of them.
package broker

import (
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// Encode makes a metric's message.
func Encode(m domain.Metric) *eventv1.Metric {
	out := &eventv1.Metric{PeerId: m.PeerID, Version: m.Version, Interval: durationpb.New(m.Interval),
		Cpu:    &eventv1.Cpu{Model: m.CPU.Model, Cores: m.CPU.Cores, Threads: m.CPU.Threads, Mhz: m.CPU.MHz, Load: m.CPU.Load, Load1: m.CPU.Load1},
		Memory: &eventv1.Memory{Total: m.Memory.Total, Free: m.Memory.Free, Used: m.Memory.Used},
		Disk:   &eventv1.Disk{Total: m.Disk.Total, Free: m.Disk.Free, Used: m.Disk.Used},
		Queue:  &eventv1.Queue{Pending: m.Queue.Pending, Running: m.Queue.Running, Slots: m.Queue.Slots, Capacity: m.Queue.Capacity}}
	for _, g := range m.GPUs {
		out.Gpus = append(out.Gpus, &eventv1.Gpu{Model: g.Model, Memory: g.Memory})
	}
	return out
}

// Decode is the reverse of Encode. It checks nothing but that the interval is a duration and the list is bounded.
func Decode(m *eventv1.Metric) (domain.Metric, error) {
	if err := m.GetInterval().CheckValid(); err != nil {
		return domain.Metric{}, &domain.Invalid{Reason: "INTERVAL_INVALID", Detail: "the interval is no duration"}
	}
	if len(m.GetGpus()) > domain.MaxGPUs {
		return domain.Metric{}, &domain.Invalid{Reason: "GPU_INVALID", Detail: "too many graphics processors"}
	}
	c, mem, d := m.GetCpu(), m.GetMemory(), m.GetDisk()
	out := domain.Metric{PeerID: m.GetPeerId(), Version: m.GetVersion(), Interval: m.GetInterval().AsDuration(),
		CPU:    domain.CPU{Model: c.GetModel(), Cores: c.GetCores(), Threads: c.GetThreads(), MHz: c.GetMhz(), Load: c.GetLoad(), Load1: c.GetLoad1()},
		Memory: domain.Space{Total: mem.GetTotal(), Free: mem.GetFree(), Used: mem.GetUsed()},
		Disk:   domain.Space{Total: d.GetTotal(), Free: d.GetFree(), Used: d.GetUsed()},
		Queue:  DecodeQueue(m.GetQueue())}
	for _, g := range m.GetGpus() {
		out.GPUs = append(out.GPUs, domain.GPU{Model: g.GetModel(), Memory: g.GetMemory()})
	}
	return out, nil
}

// DecodeQueue translates queue figures.
func DecodeQueue(q *eventv1.Queue) domain.Queue {
	return domain.Queue{Pending: q.GetPending(), Running: q.GetRunning(), Slots: q.GetSlots(), Capacity: q.GetCapacity()}
}

// Hear checks a metric event's size, author and values; the errors are *domain.Invalid. The broker has verified its
// signature.
func Hear(ev *eventv1.Event) (m domain.Metric, inReplyTo string, err error) {
	if len(ev.GetPayload()) > domain.MaxMetric || len(ev.GetAttachment()) > 0 {
		return m, "", &domain.Invalid{Reason: "METRIC_TOO_LARGE", Detail: "the event is larger than a metric can be"}
	}
	var msg eventv1.MetricAvailable
	if ev.GetType() != eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE || proto.Unmarshal(ev.GetPayload(), &msg) != nil {
		return m, "", &domain.Invalid{Reason: "METRIC_INVALID", Detail: "the payload does not decode"}
	}
	if ev.GetAuthor() == "" || ev.GetAuthor() != msg.GetMetric().GetPeerId() {
		return m, "", &domain.Invalid{Reason: "AUTHOR_MISMATCH", Detail: "the author is not the peer that was measured"}
	}
	if m, err = Decode(msg.GetMetric()); err != nil {
		return m, "", err
	}
	return m, msg.GetInReplyTo(), m.Check()
}

func reason(err error) string {
	var why *domain.Invalid
	if errors.As(err, &why) {
		return why.Reason
	}
	return "INVALID"
}
