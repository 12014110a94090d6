// Package top shows a node live in a terminal: what shallot.node.v1 says of it, once a second.
package top

import (
	"context"
	"slices"
	"time"

	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
	metricv1 "github.com/shallot-net/shallot/proto/shallot/metric/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Asker is what is asked of a node.
type Asker interface {
	Node(ctx context.Context) (*nodev1.Node, error)
	Tasks(ctx context.Context) ([]*taskv1.Task, error)      // the newest, some hundred at most
	Peers(ctx context.Context) ([]*discoveryv1.Peer, error) // the first page
	// Own are the resources of this node, a provider.
	Own(ctx context.Context, n *nodev1.Node) (*metricv1.KnownMetric, error)
}

// askTimeout bounds one look; the next one comes a second after it.
const askTimeout = 2 * time.Second

// Snapshot is one look at a node.
type Snapshot struct {
	At    time.Time
	Node  *nodev1.Node
	Tasks []*taskv1.Task
	Peers []*discoveryv1.Peer
	Own   *metricv1.KnownMetric // nil on a consumer
}

// Look asks all that there is to show. What a node does not offer in its role is left out; an error is that the node does not answer.
func Look(ctx context.Context, a Asker, now func() time.Time) (*Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s := &Snapshot{At: now()}
	var err error
	if s.Node, err = a.Node(ctx); err != nil {
		return nil, err
	}
	// A process behind node may be away: then there is the rest, and its line says so.
	s.Tasks, _ = a.Tasks(ctx)
	s.Peers, _ = a.Peers(ctx)
	if s.Node.GetRole() == "provider" {
		s.Own, _ = a.Own(ctx, s.Node)
	}
	return s, nil
}

// Figures are what is computed of the tasks that a node has told of.
type Figures struct {
	PerMinute               int           // that ended in the last minute
	Half, Most              time.Duration // half of them, and 99 of 100, took no longer from submission to end; 0 where none ended
	Waiting, Running, Slots uint32
}

// Figures of the last minute before it was looked.
func (s *Snapshot) Figures() Figures {
	var f Figures
	var took []time.Duration
	for _, t := range s.Tasks {
		switch t.GetState() {
		case "RUNNING":
			f.Running++
		case "PENDING", "SUBMITTED", "ACCEPTED":
			f.Waiting++
		}
		if end := t.GetFinishedAt(); end != nil && s.At.Sub(end.AsTime()) < time.Minute {
			f.PerMinute++
			took = append(took, max(end.AsTime().Sub(t.GetCreatedAt().AsTime()), 0))
		}
	}
	if q := s.Own.GetMetric().GetQueue(); q != nil {
		f.Waiting, f.Running, f.Slots = q.GetPending(), q.GetRunning(), q.GetSlots()
	}
	if n := len(took); n > 0 {
		slices.Sort(took)
		f.Half, f.Most = took[n/2], took[min(n*99/100, n-1)]
	}
	return f
}

func took(t *taskv1.Task, now time.Time) time.Duration {
	end := now
	if t.GetFinishedAt() != nil {
		end = t.GetFinishedAt().AsTime()
	}
	return max(end.Sub(t.GetCreatedAt().AsTime()), 0)
}
