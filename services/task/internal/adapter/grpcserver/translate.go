package grpcserver

import (
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func toTask(v *app.TaskView, history bool) *taskv1.Task {
	m := &taskv1.Task{Id: v.ID, Type: v.Type, State: v.State.String(), Provider: v.Provider, Consumer: v.Consumer, Attempts: v.Attempts, ExitCode: v.ExitCode,
		CreatedAt: timestamp(v.CreatedAt), StartedAt: timestamp(v.StartedAt), FinishedAt: timestamp(v.FinishedAt), Limits: wire.Limits(v.Limits),
		Labels: v.Labels, RequestId: v.RequestID, QueuePosition: v.QueuePosition, Revision: v.Revision, Replicas: v.Replicas}
	if v.Error != nil {
		m.Error = &taskv1.TaskError{Reason: v.Error.Reason, Message: v.Error.Message}
	}
	if v.Usage != (domain.Usage{}) {
		m.Usage = wire.Usage(v.Usage)
	}
	if v.Result != nil {
		m.Result = toResult(v.Result, v.Available)
	}
	if history {
		if p := v.Progress; p != nil {
			m.Progress = &taskv1.Progress{Fraction: p.Fraction, Text: p.Text, At: timestamp(p.At)}
		}
		for _, r := range v.ReplicaPeers {
			m.ReplicaPeers = append(m.ReplicaPeers, &taskv1.Replica{PeerId: r.Peer, State: r.State.String(), Reason: r.Reason})
		}
		for _, h := range v.History {
			m.History = append(m.History, &taskv1.HistoryEntry{At: timestamp(h.At), Attempt: h.Attempt, State: h.State.String(), What: h.What, PeerId: h.Peer, Detail: h.Detail})
		}
	}
	return m
}

func toResult(r *domain.Result, available bool) *taskv1.ResultInfo {
	m := &taskv1.ResultInfo{Cid: r.CID, Available: available}
	for _, p := range r.Parts {
		switch p.Name {
		case "stdout":
			m.StdoutSize, m.StdoutSha256 = uint64(p.Size), p.SHA256.String()
		case "stderr":
			m.StderrSize = uint64(p.Size)
		default:
			m.Files = append(m.Files, &taskv1.OutputFile{Path: p.Name[min(len("output:"), len(p.Name)):], Size: uint64(p.Size)})
		}
	}
	return m
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func fromTimestamp(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func fromCandidate(c *taskv1.Candidate) app.Candidate {
	out := app.Candidate{Peer: c.GetPeerId(), SealingKey: c.GetSealingKey(), Persona: c.GetPersona(), Addresses: c.GetAddresses(),
		Resources: fromMetric(c.GetMetric()), Version: c.GetMetric().GetVersion()}
	if len(out.Addresses) > 16 {
		out.Addresses = out.Addresses[:16]
	}
	out.Puzzle, _ = wire.FromPuzzle(c.GetPuzzle()) // one that is none costs a refusal
	if c.GetAnnouncement() != nil {
		out.Announcement = wire.FromEvent(c.GetAnnouncement())
	}
	return out
}

// fromReplicas takes as many as a submission may name.
func fromReplicas(cs []*taskv1.Candidate) []domain.Replica {
	var out []domain.Replica
	for _, c := range cs[:min(len(cs), domain.MaxNamed)] {
		x := fromCandidate(c)
		out = append(out, domain.Replica{Peer: x.Peer, Addresses: x.Addresses})
	}
	return out
}

func fromMetric(m *eventv1.Metric) domain.Resources {
	if m == nil {
		return domain.Resources{}
	}
	r := domain.Resources{Known: true, MHz: m.GetCpu().GetMhz(), Load: m.GetCpu().GetLoad(), MemoryTotal: size(m.GetMemory().GetTotal()), MemoryFree: size(m.GetMemory().GetFree())}
	for _, g := range m.GetGpus() {
		r.GPUMemory += size(g.GetMemory())
	}
	q := m.GetQueue()
	r.Queue = domain.Queue{Pending: int(q.GetPending()), Running: int(q.GetRunning()), Slots: int(q.GetSlots()), Capacity: int(q.GetCapacity())}
	return r
}

// size keeps a figure that a peer made up within bounds that sums cannot leave.
func size(v uint64) int64 { return int64(min(v, math.MaxInt64/1024)) }

func fromDelivery(d *taskv1.DeliverEvent) app.Delivery {
	out := app.Delivery{Persona: d.GetPersona(), From: d.GetFromPeer(), OwnPeer: d.GetOwnPeerId(), Own: fromMetric(d.GetOwnMetric())}
	if d.GetEvent() != nil {
		out.Event = wire.FromEvent(d.GetEvent())
	}
	for _, c := range d.GetCandidates() {
		out.Candidates = append(out.Candidates, fromCandidate(c))
	}
	return out
}

func fromCreate(c *taskv1.CreateTask) (app.Create, error) {
	spec, err := fromSpec(c.GetSpec())
	out := app.Create{RequestID: c.GetRequestId(), Spec: spec, Detail: c.GetDetail()}
	if c.GetCandidate() != nil {
		candidate := fromCandidate(c.GetCandidate())
		candidate.Replicas, candidate.Choice = fromReplicas(c.GetReplicas()), fromChoice(c.GetChoice())
		out.Candidate = &candidate
	}
	return out, err
}

// builtIn are the types that have a payload of their own.
var builtIn = []string{"sum", "wasm"}

func fromSpec(s *taskv1.TaskSpec) (app.Spec, error) {
	out := app.Spec{Type: s.GetType(), Labels: s.GetLabels(), Limits: fromLimits(s.GetLimits())}
	if out.Limits.Time < 0 || out.Limits.Memory < 0 || out.Limits.Output < 0 {
		return out, fault.InvalidArgument("SPEC_INVALID", "limits has a time, memory or output that is out of range").With("field", "limits")
	}
	if err := fromPlacement(s, &out); err != nil {
		return out, err
	}
	want := ""
	switch p := s.GetPayload().(type) {
	case *taskv1.TaskSpec_Sum:
		want, out.Options = "sum", encode(&executorv1.SumOptions{Addends: p.Sum.GetAddends()})
	case *taskv1.TaskSpec_Wasm:
		want = "wasm"
		if err := fromWasm(p.Wasm, &out); err != nil {
			return out, err
		}
	case *taskv1.TaskSpec_External:
		if err := fromExternal(p.External, &out); err != nil {
			return out, err
		}
	default:
		return out, noPayload(out.Type)
	}
	if want != "" && out.Type != want {
		msg := "the type is %q and the payload is that of %q"
		if hint := fault.Suggest(out.Type, builtIn); hint != "" {
			msg += ": " + hint
		}
		return out, fault.InvalidArgument("PAYLOAD_MISMATCH", msg, cut(out.Type), want)
	}
	return out, nil
}

func noPayload(taskType string) error {
	msg := "the task of type %q has no payload: set sum, wasm or external"
	if hint := fault.Suggest(taskType, builtIn); hint != "" {
		msg += "; " + hint
	}
	return fault.InvalidArgument("PAYLOAD_MISSING", msg, cut(taskType))
}

func cut(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return s
}

func fromLimits(l *eventv1.Limits) domain.Limits {
	return domain.Limits{Time: duration(l.GetTime()), Memory: int64(l.GetMemory()), Output: int64(l.GetOutput())}
}

// duration is -1 for one that is out of range.
func duration(d *durationpb.Duration) time.Duration {
	if d == nil {
		return 0
	}
	if d.CheckValid() != nil || d.AsDuration() < 0 {
		return -1
	}
	return d.AsDuration()
}

func fromPlacement(s *taskv1.TaskSpec, out *app.Spec) error {
	if p := s.GetPlacement(); p != nil {
		out.Redirect = p.Redirect
		out.Policy = domain.Policy{Only: p.GetProviders(), Exclude: p.GetExclude(), MaxAttempts: p.GetMaxAttempts(), Replicas: p.GetReplicas()}
	}
	if c := s.GetClocks(); c != nil {
		out.Clocks = domain.Clocks{Placement: duration(c.GetPlacement()), Queue: duration(c.GetQueue()), Run: duration(c.GetRun()),
			Collection: duration(c.GetCollection()), Total: duration(c.GetTotal())}
	}
	return nil
}

// Bounds of what a wasm program is given beside its files.
const (
	maxArgs      = 4096
	maxEnv       = 1024
	maxArguments = 1 << 20 // bytes of arguments and environment together
)

func fromWasm(w *taskv1.WasmPayload, out *app.Spec) error {
	if w.GetModule().GetSource() == nil {
		return fault.InvalidArgument("MODULE_MISSING", "the wasm payload has no module")
	}
	if len(w.GetArgs()) > maxArgs || len(w.GetEnv()) > maxEnv {
		return fault.InvalidArgument("SPEC_INVALID", "there are %d arguments and %d environment variables: at most %d and %d are possible", len(w.GetArgs()), len(w.GetEnv()), maxArgs, maxEnv)
	}
	opts := &executorv1.WasmOptions{Args: w.GetArgs()}
	total := 0
	for _, a := range w.GetArgs() {
		total += len(a)
	}
	for name, value := range w.GetEnv() {
		total += len(name) + len(value)
		opts.Env = append(opts.Env, &executorv1.EnvVar{Name: name, Value: value})
	}
	slices.SortFunc(opts.Env, func(a, b *executorv1.EnvVar) int { return compare(a.Name, b.Name) }) // the same request, the same payload
	if total > maxArguments {
		return fault.InvalidArgument("SPEC_INVALID", "arguments and environment have %d bytes: at most %d are possible; put what is large into a file", total, maxArguments)
	}
	out.Options = encode(opts)
	out.Parts = append(out.Parts, part(app.PartModule, w.GetModule()))
	if w.GetStdin().GetSource() != nil {
		out.Parts = append(out.Parts, part("stdin", w.GetStdin()))
	}
	for _, f := range w.GetInputs() {
		out.Parts = append(out.Parts, part("input:"+f.GetPath(), f.GetContent()))
	}
	return nil
}

// maxExternalOptions is what a message to an executor has room for, in bytes.
const maxExternalOptions = 1 << 20

func fromExternal(x *taskv1.ExternalPayload, out *app.Spec) error {
	if slices.Contains(builtIn, out.Type) {
		return fault.InvalidArgument("PAYLOAD_MISMATCH", "the type is %s and the payload is external: give the payload %s", out.Type, out.Type)
	}
	if n := len(x.GetOptions()); n > maxExternalOptions {
		return fault.InvalidArgument("SPEC_INVALID", "the options have %s: they may have %s; put what is large into a part", domain.Bytes(int64(n)), domain.Bytes(maxExternalOptions))
	}
	out.Options = x.GetOptions()
	for _, f := range x.GetParts() {
		out.Parts = append(out.Parts, part(f.GetPath(), f.GetContent()))
	}
	return nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func part(name string, b *taskv1.Blob) app.PartSource {
	return app.PartSource{Name: name, Inline: b.GetInline(), Upload: b.GetUploadId()}
}

func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // only text that is not UTF-8, which gRPC has refused
		return nil
	}
	return b
}
