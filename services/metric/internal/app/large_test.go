package app_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

// hears lets n hear the metric of each of so many providers once, evenly over d.
func (n *node) hears(providers int, d time.Duration, version uint64) {
	for i := range providers {
		n.svc.HandleMetric("relay", "", domain.Metric{PeerID: fmt.Sprintf("stranger%04d", i), Version: version, Interval: d * 3 / 2})
		pass(d / time.Duration(providers))
	}
}

// A full table lets go of one for another all the time: were each greeted as a newcomer, every report would call for more.
func TestInALargeNetworkNobodyIsGreeted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSim(t).add().start()
		n.hears(500, 250*time.Second, 1)
		from := time.Now()
		const rounds = 6
		for i := range uint64(rounds) {
			n.hears(500, 250*time.Second, 2+i)
		}
		if said := len(n.sayings(from)); said > rounds+4 {
			t.Errorf("one of 500 providers reported %d times while each of the others did %d times", said, rounds)
		}
		if got := n.svc.Figures(); got.Known != app.DefaultMaxMetrics || got.Network < 350 || got.Network > 650 {
			t.Errorf("of 500 providers the metrics of %d are known and %d are thought to be there", got.Known, got.Network)
		}
	})
}
