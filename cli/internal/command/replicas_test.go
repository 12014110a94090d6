package command

import (
	"testing"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func TestReplicasInWords(t *testing.T) {
	t.Parallel()
	for want, task := range map[string]*taskv1.Task{
		"":         {},
		"2 wanted": {Replicas: 2, ReplicaPeers: []*taskv1.Replica{{PeerId: "12D3KooWabcdefghijkl", State: "NAMED"}}},
		"3 wanted; kept by …efghijkl; refused by …efghmnop: PEER_QUOTA; …efghqrst did not answer; …efghuvwx was asked": {Replicas: 3, ReplicaPeers: []*taskv1.Replica{
			{PeerId: "12D3KooWabcdefghijkl", State: "KEPT"}, {PeerId: "12D3KooWabcdefghmnop", State: "REFUSED", Reason: "PEER_QUOTA"},
			{PeerId: "12D3KooWabcdefghqrst", State: "SILENT"}, {PeerId: "12D3KooWabcdefghuvwx", State: "ASKED"}}},
	} {
		if got := replicas(task); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
