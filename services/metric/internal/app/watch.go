package app

import (
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// What is counted.
const (
	CountPublished   = "published"
	CountAnswered    = "query_answered"
	CountAsked       = "query_sent"
	CountExpired     = "metric_expired"
	CountEvicted     = "metric_evicted"
	CountSlowWatcher = "watcher_cut_off"
)

var outcomeCount = map[domain.Outcome]string{
	domain.Repeated: "metric_repeated", domain.Full: "metric_not_kept", domain.Newer: "metric_newer", domain.Added: "metric_added",
	domain.TooOften: "metric_too_often",
}

// Counts are all names that a Counter is called with.
func Counts() []string {
	all := []string{CountPublished, CountAnswered, CountAsked, CountExpired, CountEvicted, CountSlowWatcher}
	for _, n := range outcomeCount {
		all = append(all, n)
	}
	return all
}

// watchBuffer is how far a watcher may fall behind: a whole table's worth of changes and more.
const watchBuffer = 1024

// ErrSlowWatcher ends the watch of a reader that fell too far behind.
var ErrSlowWatcher = fault.New(codes.ResourceExhausted, "WATCHER_TOO_SLOW", "the watcher fell more than %d changes behind and was cut off: watch again for the metrics as they are now", watchBuffer)

// Change is a metric as it is now, or the peer whose metric expired.
type Change struct {
	Metric  domain.Known
	Own     bool
	Expired string
}

// Watcher gets changes until it is stopped or too slow; then C is closed and Err says why.
type Watcher struct {
	C   <-chan Change
	c   chan Change
	s   *Service
	err error
}

// ownWatch is what a watcher was last told of this node: it is measured far more often than anybody needs to hear.
type ownWatch struct {
	told domain.Metric
	at   time.Time
}

// Watch returns every fresh metric, this node's own first, and then what changes.
func (s *Service) Watch() ([]Change, *Watcher) {
	w := &Watcher{c: make(chan Change, watchBuffer), s: s}
	w.C = w.c
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = &ownWatch{s.own.Metric, time.Now()}
	return s.listLocked(), w
}

// Stop ends the watch.
func (w *Watcher) Stop() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.endLocked(nil)
}

// Err says why C was closed.
func (w *Watcher) Err() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.err
}

func (w *Watcher) endLocked(err error) {
	if _, there := w.s.watchers[w]; there {
		delete(w.s.watchers, w)
		w.err = err
		close(w.c)
	}
}

func (s *Service) tellLocked(c Change) {
	for w := range s.watchers {
		s.sendLocked(w, c)
	}
}

func (s *Service) sendLocked(w *Watcher, c Change) {
	select {
	case w.c <- c:
	default:
		s.cfg.Counter.Count(CountSlowWatcher)
		w.endLocked(ErrSlowWatcher)
	}
}

// tellOwnLocked tells watchers of this node's metric when it has changed markedly, or was not told for a while.
func (s *Service) tellOwnLocked() {
	now := time.Now()
	for w, last := range s.watchers {
		if domain.MarkedChange(&last.told, &s.own.Metric) || last.told.PeerID != s.own.PeerID || now.Sub(last.at) >= tellEvery {
			last.told, last.at = s.own.Metric, now
			s.sendLocked(w, Change{Metric: s.own, Own: true})
		}
	}
}

// List returns every fresh metric, this node's own first.
func (s *Service) List() []Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listLocked()
}

func (s *Service) listLocked() []Change {
	known := s.table.All(time.Now())
	out := make([]Change, 0, len(known)+1)
	out = append(out, Change{Metric: s.own, Own: true})
	for _, k := range known {
		out = append(out, Change{Metric: k})
	}
	return out
}

// Get returns one node's metric; this node's own for "".
func (s *Service) Get(peerID string) (Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if peerID == "" || peerID == s.peerID {
		return Change{Metric: s.own, Own: true}, nil
	}
	k, ok := s.table.Get(peerID, time.Now())
	if !ok {
		return Change{}, fault.NotFound("METRIC_UNKNOWN", "no fresh metric of this peer is known here: RefreshMetrics asks the peer itself")
	}
	return Change{Metric: k}, nil
}

// Figures are for gauges.
type Figures struct {
	Known, Network int
	Own            domain.Metric
}

// Figures are counted now.
func (s *Service) Figures() Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Figures{s.table.Len(), s.networkLocked(), s.own.Metric}
}
