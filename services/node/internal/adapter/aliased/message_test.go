package aliased

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/fault"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

const (
	alice = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	bob   = "12D3KooWGPRKSYkQtsAcnwUkCujXPGrYnyTxyWFzXxrsRvAMhKCf"
	onion = "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:4001"
)

func newMask(peers ...string) *mask {
	key := alias.New([alias.KeySize]byte{7})
	return &mask{key: key, peers: func(context.Context) ([]string, error) { return peers, nil }, tokens: newTokens(key)}
}

// answers are the types of all answers of both services.
func answers(t *testing.T) map[protoreflect.FullName]protoreflect.MessageType {
	t.Helper()
	out := map[protoreflect.FullName]protoreflect.MessageType{}
	for _, file := range []protoreflect.FileDescriptor{nodev1.File_shallot_node_v1_node_proto, nodev1.File_shallot_node_v1_job_proto} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				mt, err := protoregistry.GlobalTypes.FindMessageByName(methods.Get(j).Output().FullName())
				if err != nil {
					t.Fatal(err)
				}
				out[mt.Descriptor().FullName()] = mt
			}
		}
	}
	return out
}

// fill puts text into every field that takes any, at most so deep; of a choice it takes the member-th.
func fill(m protoreflect.Message, text string, member, deep int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if od := fd.ContainingOneof(); od != nil && od.Fields().Get(member%od.Fields().Len()) != fd {
			continue
		}
		single := func(fd protoreflect.FieldDescriptor, fresh func() protoreflect.Value) (protoreflect.Value, bool) {
			switch {
			case fd.Kind() == protoreflect.StringKind:
				return protoreflect.ValueOfString(text), true
			case fd.Kind() == protoreflect.BytesKind && fd.Parent().FullName() == "shallot.event.v1.Event":
				return protoreflect.ValueOfBytes([]byte(text)), true
			case isMessage(fd) && deep > 0:
				v := fresh()
				fill(v.Message(), text, member, deep-1)
				return v, true
			}
			return protoreflect.Value{}, false
		}
		switch {
		case fd.IsMap():
			entries := m.Mutable(fd).Map()
			if v, ok := single(fd.MapValue(), entries.NewValue); ok && fd.MapKey().Kind() == protoreflect.StringKind {
				entries.Set(protoreflect.ValueOfString(text).MapKey(), v)
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			if v, ok := single(fd, list.NewElement); ok {
				list.Append(v)
			}
		default:
			if v, ok := single(fd, func() protoreflect.Value { return m.NewField(fd) }); ok {
				m.Set(fd, v)
			}
		}
	}
}

// clearOwn takes out what is the user's own.
func clearOwn(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case own[fd.Name()]:
			m.Clear(fd)
		case fd.IsMap():
		case isMessage(fd) && fd.IsList():
			for i := range v.List().Len() {
				clearOwn(v.List().Get(i).Message())
			}
		case isMessage(fd):
			clearOwn(v.Message())
		}
		return true
	})
}

// Whatever field of whatever answer a peer id or an address is in, it does not leave. A field that is added later is among them.
func TestNoFieldOfAnyAnswerTellsWhoAPeerIs(t *testing.T) {
	m := newMask()
	all := answers(t)
	if len(all) < 25 {
		t.Fatalf("only %d answers were found", len(all))
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for member := range 3 {
			for _, secret := range []string{alice, onion + "/p2p/" + alice, "lost " + alice + " at " + onion} {
				msg := all[name].New()
				fill(msg, secret, member, 6)
				before := proto.Clone(msg.Interface())
				got := m.answer(msg.Interface(), false).(proto.Message)
				if !proto.Equal(before, msg.Interface()) {
					t.Fatalf("%s: what others may see was changed", name)
				}
				clearOwn(got.ProtoReflect())
				wire, err := proto.Marshal(got)
				if err != nil {
					t.Fatal(err)
				}
				for _, part := range []string{alice, alice[len(alice)-8:], "onion3", "vww6ybal"} {
					if bytes.Contains(wire, []byte(part)) {
						t.Errorf("%s tells %s: %v", name, part, got)
					}
				}
			}
		}
	}
}

func TestAnAliasIsInThePlaceOfWhatItStandsFor(t *testing.T) {
	m := newMask()
	a, b := m.key.Of(alice), m.key.Of(bob)
	peer := &discoveryv1.Peer{PeerId: alice, Role: "provider", Addresses: []string{onion}, SealingKey: "age1x", Announcement: &eventv1.Event{Author: alice}, Connected: true,
		Capabilities: []*eventv1.Capability{{Type: "sum", Attributes: map[string]string{"at": onion}}}}
	task := &taskv1.Task{Id: strings.Repeat("0", 32), Provider: alice, Consumer: bob, RequestId: alice, Labels: map[string]string{"for": bob},
		Error:        &taskv1.TaskError{Reason: "TRAP", Message: "asked " + bob},
		History:      []*taskv1.HistoryEntry{{What: "PLACED", PeerId: alice, Detail: "chose " + alice + ", not " + bob}},
		ReplicaPeers: []*taskv1.Replica{{PeerId: bob, State: "KEPT"}}}
	for _, c := range []struct{ in, hidden, shown proto.Message }{
		{
			&nodev1.GetPeerResponse{Peer: peer},
			&nodev1.GetPeerResponse{Peer: &discoveryv1.Peer{Alias: a, Role: "provider", Connected: true,
				Capabilities: []*eventv1.Capability{{Type: "sum", Attributes: map[string]string{"at": m.key.Text(onion)}}}}},
			&nodev1.GetPeerResponse{Peer: with(peer, func(p *discoveryv1.Peer) { p.Alias = a })},
		}, {
			&nodev1.GetPeerMetricsResponse{Metric: &metricv1.KnownMetric{Own: true, Metric: &eventv1.Metric{PeerId: alice, Version: 3}}},
			&nodev1.GetPeerMetricsResponse{Metric: &metricv1.KnownMetric{Own: true, Alias: a, Metric: &eventv1.Metric{Version: 3}}},
			&nodev1.GetPeerMetricsResponse{Metric: &metricv1.KnownMetric{Own: true, Alias: a, Metric: &eventv1.Metric{PeerId: alice, Version: 3}}},
		}, {
			&nodev1.GetTaskResponse{Task: task},
			&nodev1.GetTaskResponse{Task: &taskv1.Task{Id: task.Id, ProviderAlias: a, ConsumerAlias: b, RequestId: alice, Labels: task.Labels,
				Error:        &taskv1.TaskError{Reason: "TRAP", Message: "asked " + b},
				History:      []*taskv1.HistoryEntry{{What: "PLACED", Alias: a, Detail: "chose " + a + ", not " + b}},
				ReplicaPeers: []*taskv1.Replica{{Alias: b, State: "KEPT"}}}},
			&nodev1.GetTaskResponse{Task: with(task, func(t *taskv1.Task) {
				t.ProviderAlias, t.ConsumerAlias, t.History[0].Alias, t.ReplicaPeers[0].Alias = a, b, a, b
			})},
		}, {
			&nodev1.ConnectPeerResponse{PeerId: alice}, &nodev1.ConnectPeerResponse{Alias: a}, &nodev1.ConnectPeerResponse{PeerId: alice, Alias: a},
		},
	} {
		if got := m.answer(c.in, false).(proto.Message); !proto.Equal(got, c.hidden) {
			t.Errorf("hidden: got %v, want %v", got, c.hidden)
		}
		if got := m.answer(c.in, true).(proto.Message); !proto.Equal(got, c.shown) {
			t.Errorf("shown: got %v, want %v", got, c.shown)
		}
	}
	if in := (&nodev1.GetResultResponse{Response: &nodev1.GetResultResponse_Data{Data: []byte(alice)}}); m.answer(in, false) != any(in) {
		t.Error("a piece of a result was copied")
	}
}

func with[M proto.Message](m M, change func(M)) M {
	m = proto.CloneOf(m)
	change(m)
	return m
}

func TestErrorsNameAliases(t *testing.T) {
	m := newMask()
	in := fault.NotFound("PEER_NOT_FOUND", "no %s at %s", alice, onion).With("peer_id", alice).Because(context.Canceled)
	got := fault.From(m.err(in, false))
	if got.Message != m.key.Text(in.Message) || strings.Contains(got.Message, alice) || got.Meta["peer_id"] != m.key.Of(alice) || got.Reason != in.Reason || got.Code != in.Code ||
		!errors.Is(got, context.Canceled) {
		t.Errorf("got %v, %v", got, got.Meta)
	}
	if got := fault.From(m.err(in, true)); got.Message != in.Message || got.Meta["peer_id"] != alice || m.err(nil, false) != nil {
		t.Error("what was asked for is hidden")
	}
}

func TestRequestsNamePeersByAlias(t *testing.T) {
	m := newMask(alice, bob, alice)
	a, b := m.key.Of(alice), m.key.Of(bob)
	ctx := t.Context()
	get := &nodev1.GetPeerRequest{PeerId: strings.ToUpper(a)}
	metric := &nodev1.GetPeerMetricsRequest{PeerId: bob}
	spec := func() *taskv1.TaskSpec {
		return &taskv1.TaskSpec{Placement: &taskv1.PlacementPolicy{Providers: []string{a, bob}, Exclude: []string{b}}}
	}
	submit, run := &nodev1.SubmitTaskRequest{Spec: spec()}, &nodev1.RunTaskRequest{Spec: spec()}
	job := &nodev1.CreateJobRequest{Spec: &taskv1.JobSpec{Task: spec()}}
	for _, req := range []any{get, metric, submit, run, job, &nodev1.SubmitTaskRequest{}, &nodev1.GetNodeRequest{}} {
		if err := m.request(ctx, req); err != nil {
			t.Fatal(err)
		}
	}
	if get.GetPeerId() != alice || metric.GetPeerId() != bob {
		t.Errorf("got %s and %s", get.GetPeerId(), metric.GetPeerId())
	}
	for _, s := range []*taskv1.TaskSpec{submit.GetSpec(), run.GetSpec(), job.GetSpec().GetTask()} {
		if p := s.GetPlacement(); !slices.Equal(p.GetProviders(), []string{alice, bob}) || !slices.Equal(p.GetExclude(), []string{bob}) {
			t.Errorf("got %v", p)
		}
	}
	other := "p-00000000"
	for given, want := range map[string]string{other: "PEER_NOT_FOUND", a[:9]: "ALIAS_INVALID", a + "0": "ALIAS_INVALID", "p-lllllllO": "ALIAS_INVALID"} {
		err := m.request(ctx, &nodev1.SubmitTaskRequest{Spec: &taskv1.TaskSpec{Placement: &taskv1.PlacementPolicy{Exclude: []string{given}}}})
		if f := fault.From(err); f == nil || f.Reason != want || !strings.Contains(f.Message, "spec.placement.exclude[0]") || !strings.Contains(f.Message, given) {
			t.Errorf("%s: %v", given, err)
		}
	}
	if err := m.request(ctx, &nodev1.GetPeerRequest{PeerId: a[:9]}); !strings.Contains(err.Error(), a) {
		t.Errorf("no alias is suggested: %v", err)
	}
	failing := newMask()
	failing.peers = func(context.Context) ([]string, error) { return nil, fault.Unavailable("AWAY", "away") }
	if err := failing.request(ctx, &nodev1.GetPeerRequest{PeerId: a}); fault.From(err).Reason != "AWAY" {
		t.Errorf("without peers: %v", err)
	}
}

// Whoever has content is named by alias, too.
func TestContentIsAskedForByAlias(t *testing.T) {
	m := newMask(alice, bob)
	get, list := &nodev1.GetContentRequest{FromPeers: []string{m.key.Of(bob), alice}}, &nodev1.ListContentRequest{FromPeers: []string{m.key.Of(alice)}}
	if err := errors.Join(m.request(t.Context(), get), m.request(t.Context(), list)); err != nil {
		t.Fatal(err)
	}
	if got := get.GetFromPeers(); got[0] != bob || got[1] != alice || list.GetFromPeers()[0] != alice {
		t.Errorf("they are asked at %v and %v", got, list.GetFromPeers())
	}
	unknown := &nodev1.GetContentRequest{FromPeers: []string{alice, "p-zzzzzzzz"}}
	if err := m.request(t.Context(), unknown); err == nil || !strings.Contains(err.Error(), "from_peers[1]") {
		t.Errorf("an alias of nobody: %v", err)
	}
}

// It takes a million ids to find two of one alias, so the table is made by hand.
func TestAnAmbiguousAliasIsRefused(t *testing.T) {
	m := newMask()
	a := m.key.Of(alice)
	r := &resolver{m: m, ctx: t.Context(), by: map[string][]string{a: {alice, bob}}}
	if _, err := r.peer("peer_id", a); fault.From(err).Reason != "ALIAS_AMBIGUOUS" || !strings.Contains(err.Error(), "--show-addresses") {
		t.Errorf("got %v", err)
	}
}

func TestPageTokensTellNothing(t *testing.T) {
	m := newMask()
	next := m.answer(&nodev1.ListPeersResponse{NextPageToken: alice}, false).(*nodev1.ListPeersResponse).GetNextPageToken()
	if strings.Contains(next, alice) || next == "" {
		t.Fatalf("the token is %q", next)
	}
	req := &nodev1.ListPeersRequest{PageToken: next}
	if err := m.request(t.Context(), req); err != nil || req.GetPageToken() != alice {
		t.Errorf("it is read as %q, %v", req.GetPageToken(), err)
	}
	for _, bad := range []string{alice, "x", next[1:], "!"} {
		if err := m.request(t.Context(), &nodev1.ListPeersRequest{PageToken: bad}); fault.From(err) == nil || fault.From(err).Reason != "PAGE_TOKEN_INVALID" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got := m.answer(&nodev1.ListPeersResponse{}, false).(*nodev1.ListPeersResponse).GetNextPageToken(); got != "" {
		t.Errorf("the last page has the token %q", got)
	}
}

func TestEveryMethodIsRegistered(t *testing.T) {
	var got catcher
	New(&got, alias.New([alias.KeySize]byte{}), nil).RegisterService(&nodev1.NodeService_ServiceDesc, nil)
	want := nodev1.NodeService_ServiceDesc
	if len(got.Methods) != len(want.Methods) || len(got.Streams) != len(want.Streams) || got.ServiceName != want.ServiceName {
		t.Errorf("registered %v", got.ServiceDesc)
	}
}

type catcher struct{ *grpc.ServiceDesc }

func (c *catcher) RegisterService(d *grpc.ServiceDesc, _ any) { c.ServiceDesc = d }
