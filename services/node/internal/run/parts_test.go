package run

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

func known(peer string, version uint64, running uint32) *metricv1.KnownMetric {
	return &metricv1.KnownMetric{Age: durationpb.New(2 * time.Second), Metric: &eventv1.Metric{PeerId: peer, Version: version, Interval: durationpb.New(10 * time.Second),
		Queue: &eventv1.Queue{Running: running, Slots: 4}}}
}

func TestProviderTellsDiscoveryAndMetric(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	eventually(t, "discovery knows what the provider executes", func() bool {
		u := p.discovery.Updates()
		return len(u) > 0 && u[len(u)-1].GetSealingKey() != "" && u[len(u)-1].GetCapabilities()[0].GetType() == "sum"
	})
	reported := func(running uint32) func() bool {
		return func() bool {
			r := p.metric.Reports()
			return len(r) > 0 && r[len(r)-1].GetRunning() == running
		}
	}
	eventually(t, "metric knows the queue", reported(0))
	p.task.SetQueue(&eventv1.Queue{Running: 3, Slots: 4})
	eventually(t, "metric knows the new queue", reported(3))
	// Each of the others is told again when it comes back, for it may be another one.
	n := len(p.discovery.Updates())
	p.discovery.Stop()
	p.discovery.Start()
	eventually(t, "discovery was told again", func() bool { return len(p.discovery.Updates()) > n })
	n = len(p.metric.Reports())
	p.metric.Stop()
	p.metric.Start()
	eventually(t, "metric was told again", func() bool { return len(p.metric.Reports()) > n })
	g, err := p.api.GetNode(testContext(t), &nodev1.GetNodeRequest{})
	if err != nil || len(g.GetNode().GetCapabilities()) != 1 || g.GetNode().GetRole() != RoleProvider {
		t.Errorf("the node says %v, %v", g.GetNode(), err)
	}
}

func TestProviderBringsCandidates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, other, wrong, gone := w.provider(), w.provider(), w.provider(), w.provider()
	wrong.types = []string{"wasm"}
	for _, m := range []*member{other, wrong} {
		p.discovery.SetPeer(m.row())
	}
	row := gone.row()
	row.State = "unavailable"
	p.discovery.SetPeer(row)
	p.metric.SetMetric(known(other.id(), 7, 2))
	own := known(p.id(), 9, 1)
	own.Own = true
	p.metric.SetMetric(own)
	eventually(t, "the snapshot is there", func() bool {
		return p.node.provider.Available() == 2 && p.node.provider.OwnMetric() != nil && p.node.provider.Self() != nil
	})
	c := w.consumer(p)
	eventually(t, "the consumer knows p", func() bool { return c.node.consumer != nil && c.peerIs(p.id(), "available") })
	spec := sumOf("1")
	spec.Placement = &taskv1.PlacementPolicy{Providers: []string{p.id()}}
	c.run(testContext(t), "", spec).want(t, "1")
	d := p.task.Stats().Delivered[0]
	if len(d.GetCandidates()) != 1 {
		t.Fatalf("%d candidates", len(d.GetCandidates()))
	}
	x := d.GetCandidates()[0]
	var a eventv1.Announcement
	if err := proto.Unmarshal(x.GetAnnouncement().GetPayload(), &a); err != nil || a.GetPeerId() != other.id() {
		t.Errorf("the announcement is of %q, %v", a.GetPeerId(), err)
	}
	if x.GetPeerId() != other.id() || x.GetSealingKey() == "" || len(x.GetAddresses()) != 1 || x.GetMetric().GetVersion() != 7 || x.GetMetricAge().AsDuration() < 2*time.Second {
		t.Errorf("the candidate is %v", x)
	}
	if d.GetOwnMetric().GetVersion() != 9 || d.GetOwnPeerId() != p.id() {
		t.Errorf("own metric %v, own id %q", d.GetOwnMetric(), d.GetOwnPeerId())
	}
	// What has expired or is forgotten is not brought; neither is what a new discovery service does not know.
	p.metric.Expire(other.id())
	p.discovery.Forget(wrong.id(), false)
	eventually(t, "one is forgotten", func() bool { return p.node.provider.Available() == 1 })
	c.run(testContext(t), "", spec).want(t, "1")
	s := p.task.Stats()
	if got := s.Delivered[len(s.Delivered)-1].GetCandidates(); len(got) != 1 || got[0].GetMetric() != nil {
		t.Errorf("candidates are %v", got)
	}
	p.discovery.Stop()
	p.discovery.Forget(other.id(), true)
	p.discovery.Start()
	eventually(t, "the other is forgotten too", func() bool { return p.node.provider.Available() == 0 })
}

func (m *member) peerIs(id, state string) bool {
	r, err := m.api.GetPeer(context.Background(), &nodev1.GetPeerRequest{PeerId: id})
	return err == nil && r.GetPeer().GetState() == state
}

func TestNodeAndItsProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer(p)
	c.knows(1)
	get := func(m *member) *nodev1.Node {
		r, err := m.api.GetNode(testContext(t), &nodev1.GetNodeRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetNode()
	}
	eventually(t, "both are ready", func() bool { return get(p).GetReady() && get(c).GetReady() && get(c).GetConnections() == 1 })
	n := get(c)
	if n.GetPeerId() != c.id() || n.GetAddresses()[0] != c.broker.JoinAddress() || n.GetMode() != "open" || n.GetProvidersKnown() != 1 || !n.GetOnline() ||
		n.GetVersion() == "" || time.Since(n.GetStartedAt().AsTime()) > time.Minute {
		t.Errorf("the node says %v", n)
	}
	var names []string
	for _, x := range get(p).GetProcesses() {
		names = append(names, x.GetName())
		if x.GetState() != "serving" || x.GetPid() != int64(os.Getpid()) || x.GetDetail() != "" {
			t.Errorf("process %v", x)
		}
	}
	if got := strings.Join(names, " "); got != "broker discovery metric task node" {
		t.Errorf("the processes are %s", got)
	}
	g, err := telemetryv1.NewTelemetryServiceClient(c.conn).Gather(testContext(t), &telemetryv1.GatherRequest{})
	if err != nil || len(g.GetProcesses()) != 3 {
		t.Fatalf("%d processes gathered, %v", len(g.GetProcesses()), err)
	}
	if own := string(g.GetProcesses()[0].GetText()); !strings.Contains(own, MetricProviders+" 1") || !strings.Contains(own, MetricOnline+" 1") {
		t.Errorf("node's own metrics are %s", own)
	}
}

func TestPassThroughs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer(p)
	c.knows(1)
	ctx := testContext(t)
	o := c.run(ctx, "", sumOf("0", "fill"))
	id := o.task.GetId()

	up, err := c.api.Upload(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := up.Send(&nodev1.UploadRequest{Data: make([]byte, 1<<20)}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := up.CloseAndRecv(); err != nil || r.GetSize() != 3<<20 || r.GetUploadId() == "" {
		t.Errorf("uploaded %v, %v", r, err)
	}
	up, _ = c.api.Upload(ctx)
	_ = up.Send(&nodev1.UploadRequest{Data: make([]byte, 1<<20+1)})
	if _, err := up.CloseAndRecv(); fault.From(err).Code != codes.InvalidArgument {
		t.Errorf("a piece that is too large: %v", err)
	}
	res, err := c.api.GetResult(ctx, &nodev1.GetResultRequest{TaskId: id, Offset: 10})
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	size := uint64(0)
	for {
		m, err := res.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		size = max(size, m.GetSize())
		body = append(body, m.GetData()...)
	}
	if size != 100_000 || len(body) != 100_000-10 {
		t.Errorf("the result has %d bytes, of which came %d", size, len(body))
	}
	logs, err := c.api.GetLogs(ctx, &nodev1.GetLogsRequest{TaskId: id})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := logs.Recv(); err != nil || string(m.GetData()) != "log of "+id {
		t.Errorf("the log is %q, %v", m.GetData(), err)
	}
	list, err := c.api.ListTasks(ctx, &nodev1.ListTasksRequest{States: []string{"COMPLETED"}})
	if err != nil || len(list.GetTasks()) != 1 {
		t.Errorf("listed %v, %v", list, err)
	}
	get, err := c.api.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: id})
	if err != nil || len(get.GetTask().GetHistory()) < 3 {
		t.Errorf("got %v, %v", get, err)
	}
	s, err := c.api.SubmitTask(ctx, &nodev1.SubmitTaskRequest{Spec: &taskv1.TaskSpec{Type: "nobody-runs-this"}})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.api.CancelTask(ctx, &nodev1.CancelTaskRequest{TaskId: s.GetTask().GetId()}); err != nil || r.GetTask().GetState() != "CANCELLED" {
		t.Errorf("cancelled %v, %v", r, err)
	}
	eventually(t, "nothing is pending", func() bool { return c.node.placer.Pending() == 0 })
}

func TestContent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.consumer()
	ctx := testContext(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	put, err := c.api.PutContent(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for part := data; len(part) > 0; part = part[min(len(part), 100_000):] {
		if err := put.Send(&nodev1.PutContentRequest{Data: part[:min(len(part), 100_000)]}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := put.CloseAndRecv()
	if err != nil || r.GetSize() != uint64(len(data)) {
		t.Fatalf("put %v, %v", r, err)
	}
	read := func(offset uint64) []byte {
		s, err := c.api.GetContent(ctx, &nodev1.GetContentRequest{Cid: r.GetCid(), Offset: offset})
		if err != nil {
			t.Fatal(err)
		}
		var out []byte
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return out
			}
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, m.GetData()...)
		}
	}
	if !bytes.Equal(read(0), data) || !bytes.Equal(read(1000), data[1000:]) {
		t.Error("what is read is not what was put")
	}
	if s, err := c.api.StatContent(ctx, &nodev1.StatContentRequest{Cid: r.GetCid()}); err != nil || s.GetContent().GetSize() != uint64(len(data)) {
		t.Errorf("stat %v, %v", s, err)
	}
	pins := func() int {
		l, err := c.api.ListPins(ctx, &nodev1.ListPinsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(l.GetPins())
	}
	if pins() != 1 {
		t.Error("it is not pinned for the user")
	}
	if _, err := c.api.UnpinContent(ctx, &nodev1.UnpinContentRequest{Cid: r.GetCid()}); err != nil || pins() != 0 {
		t.Errorf("unpin: %v", err)
	}
	if _, err := c.api.PinContent(ctx, &nodev1.PinContentRequest{Cid: r.GetCid()}); err != nil || pins() != 1 {
		t.Errorf("pin: %v", err)
	}
	if c, err := c.api.CollectContent(ctx, &nodev1.CollectContentRequest{}); err != nil || c.GetUsed() != uint64(len(data)) || c.GetBlocks() != 0 {
		t.Errorf("collect: %v, %v", c, err)
	}
	verify, err := c.api.VerifyContent(ctx, &nodev1.VerifyContentRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := verify.Recv(); err != nil || !m.GetProgress().GetDone() || m.GetProgress().GetBlocks() != 1 {
		t.Errorf("verify: %v, %v", m, err)
	}
	typo := r.GetCid()[:len(r.GetCid())-1] + "z"
	_, err = c.api.StatContent(ctx, &nodev1.StatContentRequest{Cid: typo})
	if f := fault.From(err); f.Code != codes.NotFound || !strings.Contains(f.Message, typo) || !strings.Contains(f.Message, r.GetCid()) {
		t.Errorf("a typo gets %v", err)
	}
	// A caller that goes away in the middle leaves nothing.
	gone, stop := context.WithCancel(ctx)
	put, err = c.api.PutContent(gone)
	if err != nil {
		t.Fatal(err)
	}
	_ = put.Send(&nodev1.PutContentRequest{Data: []byte("half")})
	stop()
	if _, err := put.CloseAndRecv(); err == nil {
		t.Error("it was stored")
	}
	if n := c.content.Len(); n != 1 {
		t.Errorf("%d files are there", n)
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer()
	ctx := testContext(t)
	r, err := c.api.ConnectPeer(ctx, &nodev1.ConnectPeerRequest{Address: p.broker.JoinAddress()})
	if err != nil || r.GetPeerId() != p.id() {
		t.Fatalf("joined %v, %v", r, err)
	}
	c.knows(1)
	if _, err := p.api.ConnectPeer(ctx, &nodev1.ConnectPeerRequest{Address: c.broker.JoinAddress()}); err != nil || len(p.discovery.Joined) != 1 {
		t.Errorf("discovery was not told: %v", err)
	}
	p.discovery.SetPeer(&discoveryv1.Peer{PeerId: c.id(), State: "available"})
	if r, err := p.api.GetPeer(ctx, &nodev1.GetPeerRequest{PeerId: c.id()}); err != nil || r.GetPeer().GetState() != "available" {
		t.Errorf("discovery says %v, %v", r, err)
	}
}

func TestSlowWatcherHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.consumer(w.provider())
	c.knows(1)
	ctx := testContext(t)
	s, err := c.api.SubmitTask(ctx, &nodev1.SubmitTaskRequest{Spec: &taskv1.TaskSpec{Type: "nobody-runs-this"}})
	if err != nil {
		t.Fatal(err)
	}
	watch, err := c.api.WatchTask(ctx, &nodev1.WatchTaskRequest{TaskId: s.GetTask().GetId()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	// Far more than the stream's window can hold, none of it read.
	big := strings.Repeat("x", 200_000)
	for i := range uint64(200) {
		c.node.flow.Heard(&taskv1.SessionResponse{Task: &taskv1.Task{Id: s.GetTask().GetId(), State: "RUNNING", Revision: 1000 + i, Labels: map[string]string{"big": big}}})
	}
	c.run(ctx, "", sumOf("1", "1")).want(t, "2") // others are served
	c.node.flow.Heard(&taskv1.SessionResponse{Task: &taskv1.Task{Id: s.GetTask().GetId(), State: "FAILED", Revision: 2000}})
	n, last := 0, ""
	for {
		r, err := watch.Recv()
		if err != nil {
			break
		}
		n++
		last = r.GetTask().GetState()
	}
	if last != "FAILED" || n > 100 {
		t.Errorf("the watcher got %d states, the last %s", n, last)
	}
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	id := "12D3KooWGPRKSYkQtsAcnwUkCujXPGrYnyTxyWFzXxrsRvAMhKCf"
	good := "/ip4/127.0.0.1/tcp/1/p2p/" + id
	file := filepath.Join(dir, "bootstrap")
	if err := os.WriteFile(file, []byte("# friends\n"+good+"  # one\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte(good+"\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func(args ...string) (Config, error) {
		cfg := Default()
		_, err := config.Load(Process, &cfg, append([]string{"--home", dir}, args...), config.WithEnviron(nil))
		return cfg, err
	}
	cfg, err := load("--bootstrap", good+","+good, "--bootstrap-file", file)
	if err != nil || cfg.Role != RoleConsumer {
		t.Fatal(cfg, err)
	}
	if got := cfg.bootstrap(); len(got) != 3 || domain.AddressPeer(got[2]) != id {
		t.Errorf("bootstrap is %v", got)
	}
	for want, args := range map[string][]string{
		`role is "boss"`:             {"--role", "boss"},
		"does not end in /p2p/ID":    {"--bootstrap", "/ip4/127.0.0.1/tcp/1"},
		"line 2 of bootstrap_file":   {"--bootstrap-file", bad},
		"cannot read":                {"--bootstrap-file", filepath.Join(dir, "none")},
		"view_size is 5":             {"--view-size", "5"},
		"neighbours is 0":            {"--neighbours", "0"},
		"outbox_memory is 1B":        {"--outbox-memory", "1"},
		"send_timeout is 1h0m0s":     {"--send-timeout", "1h"},
		"discovery service joins":    {"--role", "provider", "--bootstrap", good},
		"joins through a consumer":   {"--address-file", file},
		`did you mean "--view_size"`: {"--view-sise", "128"},
	} {
		if _, err := load(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

func TestMainSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	if err := Main(t.Context(), []string{"--home", dir, "--listen", "0.0.0.0:1"}); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Main(ctx, []string{"--home", dir, "--log.level", "error"}) }()
	eventually(t, "it listens", func() bool { _, err := os.Stat(filepath.Join(dir, "run", "node.sock")); return err == nil })
	if err := Main(ctx, []string{"--home", dir}); err == nil || !strings.Contains(err.Error(), "another node runs on this home") {
		t.Errorf("a second one: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
