package command

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

const (
	aliasA = "p-3k9xw2mh"
	aliasB = "p-0a1b2c3d"
	onionA = "/onion3/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:4001"
)

// veil makes the node an anonymous one, as it looks to users.
func (w *world) veil() {
	w.node.Now = func() time.Time { return noon }
	w.node.Info = func() *nodev1.Node {
		return &nodev1.Node{PeerId: peerA, Alias: aliasA, Addresses: []string{onionA + "/p2p/" + peerA}, Role: "consumer", Mode: "anonymous", Online: true, Ready: true, Version: "dev"}
	}
	w.node.Peers = func() []*discoveryv1.Peer {
		return []*discoveryv1.Peer{{PeerId: peerB, Alias: aliasB, Role: "provider", State: "available", LastSeen: ago(time.Second), Addresses: []string{onionA}, SealingKey: "age1x"}}
	}
	w.node.Metrics = []*metricv1.KnownMetric{{Alias: aliasB, Age: durationpb.New(time.Second), Metric: &eventv1.Metric{Queue: &eventv1.Queue{Slots: 4}}}}
	w.node.Add(&taskv1.Task{Id: "3f2a9c00000000000000000000000001", Type: "wasm", State: "COMPLETED", ProviderAlias: aliasB, Attempts: 1, ExitCode: proto.Int32(0), Revision: 9,
		CreatedAt: ago(time.Minute), Replicas: 2, ReplicaPeers: []*taskv1.Replica{{Alias: aliasA, State: "KEPT"}},
		History: []*taskv1.HistoryEntry{{At: ago(time.Minute), Attempt: 1, State: "SUBMITTED", What: "PLACED", Alias: aliasB, Detail: "chose " + aliasB}}}, "", "")
}

func TestAnonymousPeersHaveAliases(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.veil()
	for want, args := range map[string][]string{
		"alias: " + aliasA: {"node"}, aliasB + " provider": {"peers"}, aliasB + " 0 ×": {"metrics"}, aliasB: {"task", "ls"},
		"provider: " + aliasB: {"task", "show", "3f2a9c"}, "kept by " + aliasA: {"task", "show", "3f2a9c"}, "at " + aliasB: {"task", "watch", "3f2a9c"},
	} {
		r := w.run(args...)
		if r.code != 0 || !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), want) {
			t.Errorf("%v: exit code %d, %q is not in\n%s%s", args, r.code, want, r.stdout, r.stderr)
		}
		for _, secret := range []string{peerA, peerB, "onion3", "peer id"} {
			if strings.Contains(r.stdout, secret) {
				t.Errorf("%v shows %q", args, secret)
			}
		}
	}
	for want, args := range map[string][]string{
		"peer id: " + peerA: {"node", "--show-addresses"}, onionA + "/p2p/" + peerA: {"node", "--show-addresses"},
		aliasB + " " + peerB: {"peers", "--show-addresses"}, onionA: {"peers", "--show-addresses"},
	} {
		if r := w.run(args...); r.code != 0 || !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), want) {
			t.Errorf("%v: exit code %d, %q is not in\n%s%s", args, r.code, want, r.stdout, r.stderr)
		}
	}
}

func TestAnonymousJSONHasAliasesInThePlaceOfIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.veil()
	first := func(list any) map[string]any { return list.([]any)[0].(map[string]any) }
	node := w.run("node", "--output", "json").json(t)
	peer := first(w.run("peers", "--output", "json").json(t)["peers"])
	task := w.run("task", "show", "3f2a9c", "--output", "json").json(t)
	for name, c := range map[string]struct {
		object map[string]any
		field  string
		want   string
		gone   []string
	}{
		"node": {node, "alias", aliasA, []string{"peer_id", "addresses"}}, "peer": {peer, "alias", aliasB, []string{"peer_id", "addresses", "sealing_key", "announcement"}},
		"task": {task, "provider_alias", aliasB, []string{"provider"}}, "history": {first(task["history"]), "alias", aliasB, []string{"peer_id"}},
		"replica": {first(task["replica_peers"]), "alias", aliasA, []string{"peer_id"}},
	} {
		if c.object[c.field] != c.want {
			t.Errorf("%s: %s is %v", name, c.field, c.object[c.field])
		}
		for _, f := range c.gone {
			if v, ok := c.object[f]; ok {
				t.Errorf("%s: there is %s: %v", name, f, v)
			}
		}
	}
	shown := first(w.run("peers", "--show-addresses", "--output", "json").json(t)["peers"])
	if shown["alias"] != aliasB || shown["peer_id"] != peerB || shown["addresses"].([]any)[0] != onionA {
		t.Errorf("with addresses: %v", shown)
	}
}

func TestRunAtAnAlias(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.veil()
	w.run("run", "sum", "1", "2", "--provider", aliasB).want(t, 0, "3\n", "")
	var asked []string
	for _, task := range w.node.Tasks() {
		asked = append(asked, w.node.Spec(task.GetId()).GetPlacement().GetProviders()...)
	}
	if len(asked) != 1 || asked[0] != aliasB {
		t.Errorf("asked for %v", asked)
	}
}
