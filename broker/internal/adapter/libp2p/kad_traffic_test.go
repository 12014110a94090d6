package libp2p

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/app"
)

// routed is what all hosts of all tests have sent and received for the table.
var routed atomic.Int64

// BenchmarkRefresh says what one refresh of every server of a settled network costs a node, both ways, by the size of the network. The
// time of a run means little: all nodes are on this machine.
func BenchmarkRefresh(b *testing.B) {
	for _, n := range []int{8, 16, 32, 64} {
		b.Run(fmt.Sprint(n, "nodes"), func(b *testing.B) {
			hosts := make([]*Host, n)
			for i := range hosts {
				hosts[i] = newRouted(b, app.RoutingServer, nil)
				if i > 0 {
					meet(b, hosts[i], hosts[(i-1)/4])
				}
			}
			round := func() {
				var all sync.WaitGroup
				slots := make(chan struct{}, 2)
				for _, h := range hosts {
					slots <- struct{}{}
					all.Go(func() {
						defer func() { <-slots }()
						h.kad.refresh(b.Context())
					})
				}
				all.Wait()
			}
			for range 6 { // everybody has found the place
				round()
			}
			before := routed.Load()
			for b.Loop() {
				round()
			}
			b.ReportMetric(float64(routed.Load()-before)/float64(n*b.N), "B/node")
		})
	}
}
