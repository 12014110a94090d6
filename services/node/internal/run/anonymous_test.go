package run

import (
	"bytes"
	"context"
	"encoding/base32"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mr-tron/base58"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/fault"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/fake"
)

// onionOf is the address of the onion service that has a peer's key.
func onionOf(id string) string {
	raw, err := base58.Decode(id)
	if err != nil {
		panic(err)
	}
	return "/onion3/" + strings.ToLower(base32.StdEncoding.EncodeToString(append(raw[6:], 1, 2, 3))) + ":4001"
}

// ear hears everything that a node answers to its users.
type ear struct {
	grpc.ClientConnInterface
	mu     sync.Mutex
	heard  [][]byte
	called map[string]bool
}

func (e *ear) hear(method string, msg any, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.called[method] = true
	if err != nil {
		if !strings.Contains(err.Error(), "EOF") {
			// The client's interceptor makes faults of statuses; this is a status again, with all that came.
			b, _ := proto.Marshal(status.Convert(err).Proto())
			e.heard = append(e.heard, b, []byte(err.Error()))
		}
		return
	}
	b, _ := proto.Marshal(msg.(proto.Message))
	e.heard = append(e.heard, b)
}

func (e *ear) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	err := e.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	e.hear(method, reply, err)
	return err
}

func (e *ear) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := e.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	return &earStream{s, e, method}, err
}

type earStream struct {
	grpc.ClientStream
	e      *ear
	method string
}

func (s *earStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	s.e.hear(s.method, m, err)
	return err
}

// tell looks for a secret in all that was heard.
func (e *ear) tell(secret string) (found bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.heard {
		found = found || bytes.Contains(b, []byte(secret))
	}
	return found
}

func (e *ear) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = nil
}

// readAll reads a stream to its end.
func readAll[T any](s interface{ Recv() (T, error) }, err error) error {
	for err == nil {
		_, err = s.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// gossipingJobs is a task service that says in every text of a job who a peer is, as nothing in Shallot does, or not yet.
type gossipingJobs struct {
	taskv1.UnimplementedJobServiceServer
	says string
}

func (g *gossipingJobs) job(id string) *taskv1.Job {
	return &taskv1.Job{Id: id, State: "FAILED", Detail: g.says}
}

func (g *gossipingJobs) GetJob(_ context.Context, r *taskv1.GetJobRequest) (*taskv1.GetJobResponse, error) {
	return &taskv1.GetJobResponse{Job: g.job(r.GetJobId())}, nil
}

func (g *gossipingJobs) ListJobs(context.Context, *taskv1.ListJobsRequest) (*taskv1.ListJobsResponse, error) {
	return &taskv1.ListJobsResponse{Jobs: []*taskv1.Job{g.job("x")}, NextPageToken: g.says}, nil
}

func (g *gossipingJobs) PauseJob(context.Context, *taskv1.PauseJobRequest) (*taskv1.PauseJobResponse, error) {
	return nil, fault.FailedPrecondition("JOB_STATE", "%s", g.says).With("peer_id", g.says)
}

func (g *gossipingJobs) WatchJob(_ *taskv1.WatchJobRequest, s grpc.ServerStreamingServer[taskv1.WatchJobResponse]) error {
	failed := &taskv1.Shard{State: "FAILED", Error: &taskv1.TaskError{Reason: "REFUSED", Message: g.says}}
	if err := s.Send(&taskv1.WatchJobResponse{Response: &taskv1.WatchJobResponse_Shard{Shard: &taskv1.EndedShard{Shard: failed}}}); err != nil {
		return err
	}
	return fault.Unavailable("AWAY", "%s", g.says)
}

// users calls every call that there is, at both roles, with whatever makes node speak of peers.
func users(t *testing.T, conn grpc.ClientConnInterface, peer, unknown *member, show bool) {
	ctx, end := context.WithTimeout(t.Context(), time.Minute) // there are some sixty calls
	defer end()
	api, jobs := nodev1.NewNodeServiceClient(conn), nodev1.NewJobServiceClient(conn)
	typo := peer.id()[:len(peer.id())-1] + "x"
	task := ""
	watching, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	all, watched := api.WatchTasks(watching, &nodev1.WatchTasksRequest{ShowAddresses: show})
	for _, spec := range []*taskv1.TaskSpec{
		sumOf("1", "2"),
		{Type: "nobody-runs-this"},
		{Type: "sum", Payload: sumOf("3").GetPayload(), Placement: &taskv1.PlacementPolicy{Providers: []string{peer.id()}, Replicas: 2}},
		{Type: "sum", Payload: sumOf("3").GetPayload(), Placement: &taskv1.PlacementPolicy{Exclude: []string{peer.id()}, Providers: []string{unknown.id()}}},
		{Type: "sum", Payload: sumOf("3").GetPayload(), Placement: &taskv1.PlacementPolicy{Providers: []string{"!" + peer.id()}}},
	} {
		if r, err := api.SubmitTask(ctx, &nodev1.SubmitTaskRequest{Spec: spec}); err == nil {
			task = r.GetTask().GetId()
			_, _ = api.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: task, ShowAddresses: show})
		}
		_, _ = api.CancelTask(ctx, &nodev1.CancelTaskRequest{TaskId: task})
	}
	briefly, cancel := context.WithTimeout(ctx, time.Second) // where there is nobody to run it, it waits
	defer cancel()
	_ = readAll(api.RunTask(briefly, &nodev1.RunTaskRequest{Spec: sumOf("1", "2")}))
	if r, err := api.ListTasks(ctx, &nodev1.ListTasksRequest{ShowAddresses: show}); err == nil {
		for _, x := range r.GetTasks() {
			_, _ = api.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: x.GetId(), ShowAddresses: show})
			_, _ = api.GetPlacement(ctx, &nodev1.GetPlacementRequest{TaskId: x.GetId(), ShowAddresses: show})
			task = x.GetId()
		}
	}
	_ = readAll(all, watched)
	_, _ = api.GetPlacement(ctx, &nodev1.GetPlacementRequest{TaskId: peer.id()})
	_ = readAll(api.GetResult(ctx, &nodev1.GetResultRequest{TaskId: task}))
	_ = readAll(api.GetLogs(ctx, &nodev1.GetLogsRequest{TaskId: task}))
	if s, err := api.WatchTask(ctx, &nodev1.WatchTaskRequest{TaskId: task, ShowAddresses: show}); err == nil {
		_, _ = s.Recv()
	}
	for _, id := range []string{peer.id(), unknown.id(), typo, "", "!" + peer.id()} {
		_, _ = api.GetPeer(ctx, &nodev1.GetPeerRequest{PeerId: id, ShowAddresses: show})
		_, _ = api.GetPeerMetrics(ctx, &nodev1.GetPeerMetricsRequest{PeerId: id, ShowAddresses: show})
		_, _ = api.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: id, ShowAddresses: show})
	}
	for _, address := range []string{peer.broker.JoinAddress(), onionOf(unknown.id()) + "/p2p/" + unknown.id(), onionOf(peer.id()), onionOf(peer.id()) + "/p2p/" + typo} {
		_, _ = api.ConnectPeer(ctx, &nodev1.ConnectPeerRequest{Address: address})
	}
	_, _ = api.Diagnose(ctx, &nodev1.DiagnoseRequest{})
	_, _ = api.CreateInvite(ctx, &nodev1.CreateInviteRequest{})
	_, _ = api.GetHistory(ctx, &nodev1.GetHistoryRequest{})
	_, _ = api.GetPeerMetricsHistory(ctx, &nodev1.GetPeerMetricsHistoryRequest{PeerId: peer.id()})
	_, _ = api.GetPeerMetricsHistory(ctx, &nodev1.GetPeerMetricsHistoryRequest{PeerId: typo})
	_, _ = api.GetSettings(ctx, &nodev1.GetSettingsRequest{ShowAddresses: show})
	_, _ = api.GetNode(ctx, &nodev1.GetNodeRequest{ShowAddresses: show})
	token := ""
	for range 4 {
		r, err := api.ListPeers(ctx, &nodev1.ListPeersRequest{PageSize: 1, PageToken: token, ShowAddresses: show})
		if token = r.GetNextPageToken(); err != nil || token == "" {
			break
		}
	}
	_, _ = api.ListMetrics(ctx, &nodev1.ListMetricsRequest{PageSize: 1, ShowAddresses: show})

	const cid, job = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "0123456789abcdef0123456789abcdef"
	if up, err := api.Upload(ctx); err == nil {
		_, _ = up.CloseAndRecv()
	}
	if put, err := api.PutContent(ctx); err == nil {
		_, _ = put.CloseAndRecv()
	}
	_ = readAll(api.GetContent(ctx, &nodev1.GetContentRequest{Cid: cid}))
	_ = readAll(api.ListContent(ctx, &nodev1.ListContentRequest{Cid: cid}))
	_ = readAll(api.VerifyContent(ctx, &nodev1.VerifyContentRequest{}))
	_, _ = api.StatContent(ctx, &nodev1.StatContentRequest{Cid: peer.id()})
	_, _ = api.PinContent(ctx, &nodev1.PinContentRequest{Cid: cid})
	_, _ = api.UnpinContent(ctx, &nodev1.UnpinContentRequest{Cid: cid})
	_, _ = api.ListPins(ctx, &nodev1.ListPinsRequest{})
	_, _ = api.CollectContent(ctx, &nodev1.CollectContentRequest{})

	_, _ = jobs.CreateJob(ctx, &nodev1.CreateJobRequest{RequestId: "r", Spec: &taskv1.JobSpec{Task: sumOf("1")}})
	_, _ = jobs.AddShards(ctx, &nodev1.AddShardsRequest{JobId: job})
	_, _ = jobs.GetJob(ctx, &nodev1.GetJobRequest{JobId: job})
	_, _ = jobs.ListJobs(ctx, &nodev1.ListJobsRequest{})
	_, _ = jobs.ListShards(ctx, &nodev1.ListShardsRequest{JobId: job})
	_, _ = jobs.PauseJob(ctx, &nodev1.PauseJobRequest{JobId: job})
	_, _ = jobs.ResumeJob(ctx, &nodev1.ResumeJobRequest{JobId: job})
	_, _ = jobs.CancelJob(ctx, &nodev1.CancelJobRequest{JobId: peer.id()})
	_ = readAll(jobs.WatchJob(ctx, &nodev1.WatchJobRequest{JobId: job}))
}

// anonymousWorld is a provider that two others are known to, and a consumer of all three.
func anonymousWorld(t *testing.T) (p, other, c *member) {
	w := newWorld(t)
	w.names = alias.New([alias.KeySize]byte{1, 2, 3})
	p, other = w.provider(), w.provider()
	third := w.provider()
	for _, m := range []*member{other, third} {
		p.discovery.SetPeer(m.row())
		p.metric.SetMetric(known(m.id(), 7, 2))
	}
	own := known(p.id(), 9, 1)
	own.Own = true
	p.metric.SetMetric(own)
	c = w.consumer(p)
	c.knows(3)
	return p, other, c
}

// Nothing that a user asks without --show-addresses is answered with who or where a peer is. A call that is added must be made here, too.
func TestAnonymousNodeTellsNobodyWhoItsPeersAre(t *testing.T) {
	t.Parallel()
	p, other, c := anonymousWorld(t)
	stranger := p.w.net.Add()
	unknown := &member{broker: stranger}
	other.task.Evaluate = func(_ *eventv1.TaskSubmission, _ *taskv1.DeliverEvent) fake.Decision {
		return fake.Decision{Refuse: "ASK_" + p.id()}
	}
	var secrets []string
	for _, id := range []string{p.id(), other.id(), c.id(), stranger.PeerID()} {
		secrets = append(secrets, id, id[len(id)-8:], onionOf(id)[len("/onion3/"):][:20])
	}
	secrets = append(secrets, "onion3", "age1pq1fake")
	for _, m := range []*member{p, c} {
		e := &ear{ClientConnInterface: m.conn, called: map[string]bool{}}
		users(t, e, other, unknown, false)
		for _, s := range secrets {
			if e.tell(s) {
				t.Errorf("a %s tells %q", m.role, s)
			}
		}
		for _, d := range []grpc.ServiceDesc{nodev1.NodeService_ServiceDesc, nodev1.JobService_ServiceDesc} {
			for _, x := range d.Methods {
				if !e.called["/"+d.ServiceName+"/"+x.MethodName] {
					t.Errorf("%s was not called", x.MethodName)
				}
			}
			for _, x := range d.Streams {
				if !e.called["/"+d.ServiceName+"/"+x.StreamName] {
					t.Errorf("%s was not called", x.StreamName)
				}
			}
		}
		// The ear does hear: who asks for ids and addresses is told them.
		e.forget()
		users(t, e, other, unknown, true)
		for _, s := range []string{other.id(), onionOf(other.id()), "age1pq1fake"} {
			if !e.tell(s) {
				t.Errorf("a %s does not tell %q to who asks for it", m.role, s)
			}
		}
	}
}

// What another service says in a text is no answer either.
func TestAnonymousNodePassesOnNoPeerThatAnotherServiceNames(t *testing.T) {
	t.Parallel()
	id := fake.NewKey().ID
	says := "ask " + id + " at " + onionOf(id) + "/p2p/" + id
	w := newWorld(t)
	w.names = alias.New([alias.KeySize]byte{1, 2, 3})
	m := w.consumerWithJobs(&gossipingJobs{says: says})
	e := &ear{ClientConnInterface: m.conn, called: map[string]bool{}}
	users(t, e, m, m, false)
	for _, s := range []string{id, id[len(id)-8:], "onion3"} {
		if e.tell(s) {
			t.Errorf("it tells %q", s)
		}
	}
	if !e.tell(w.names.Of(id)) {
		t.Error("the texts did not come through")
	}
}

// Whatever takes a peer id takes an alias.
func TestAnonymousNodeKnowsPeersByAlias(t *testing.T) {
	t.Parallel()
	p, other, c := anonymousWorld(t)
	ctx := testContext(t)
	name := p.w.names.Of(other.id())
	for _, m := range []*member{p, c} {
		r, err := m.api.GetPeer(ctx, &nodev1.GetPeerRequest{PeerId: name})
		if err != nil || r.GetPeer().GetAlias() != name || r.GetPeer().GetPeerId() != "" || len(r.GetPeer().GetAddresses()) != 0 || r.GetPeer().GetState() != "available" {
			t.Errorf("a %s: %v, %v", m.role, r, err)
		}
		r, err = m.api.GetPeer(ctx, &nodev1.GetPeerRequest{PeerId: name, ShowAddresses: true})
		if err != nil || r.GetPeer().GetAlias() != name || r.GetPeer().GetPeerId() != other.id() || r.GetPeer().GetAddresses()[0] != onionOf(other.id()) {
			t.Errorf("a %s, with addresses: %v, %v", m.role, r, err)
		}
		if _, err := m.api.GetPeer(ctx, &nodev1.GetPeerRequest{PeerId: "p-00000000"}); fault.From(err).Reason != "PEER_NOT_FOUND" {
			t.Errorf("a %s, one that there is not: %v", m.role, err)
		}
		n, err := m.api.GetNode(ctx, &nodev1.GetNodeRequest{})
		if err != nil || n.GetNode().GetAlias() != p.w.names.Of(m.id()) || n.GetNode().GetPeerId() != "" || len(n.GetNode().GetAddresses()) != 0 {
			t.Errorf("a %s is %v, %v", m.role, n, err)
		}
	}
	own, err := p.api.GetPeerMetrics(ctx, &nodev1.GetPeerMetricsRequest{PeerId: p.w.names.Of(p.id())})
	if err != nil || !own.GetMetric().GetOwn() || own.GetMetric().GetAlias() != p.w.names.Of(p.id()) {
		t.Errorf("its own metric: %v, %v", own, err)
	}
	spec := sumOf("1", "2")
	spec.Placement = &taskv1.PlacementPolicy{Providers: []string{strings.ToUpper(name)}}
	o := c.run(ctx, "", spec)
	o.want(t, "3")
	if o.task.GetProviderAlias() != name || o.task.GetProvider() != "" {
		t.Errorf("it ran at %v", o.task)
	}
	got, err := c.api.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: o.task.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	text := got.String()
	if !strings.Contains(text, "chose "+name) || !strings.Contains(text, "not "+p.w.names.Of(p.id())) {
		t.Errorf("the placement is explained by %s", text)
	}
	// Page by page, nobody is missing.
	seen := map[string]bool{}
	for token := ""; ; {
		r, err := c.api.ListPeers(ctx, &nodev1.ListPeersRequest{PageSize: 1, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range r.GetPeers() {
			seen[x.GetAlias()] = true
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(seen) != 3 || !seen[name] {
		t.Errorf("the pages list %v", seen)
	}
}

// In open mode nothing of this happens: aliases are empty, and answers as they were.
func TestOpenNodeHasNoAliases(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	p.discovery.SetPeer(&discoveryv1.Peer{PeerId: p.id(), LastSeen: timestamppb.Now()})
	r, err := p.api.GetPeer(testContext(t), &nodev1.GetPeerRequest{PeerId: p.id()})
	if err != nil || r.GetPeer().GetPeerId() != p.id() || r.GetPeer().GetAlias() != "" {
		t.Errorf("%v, %v", r, err)
	}
}
