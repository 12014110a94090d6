package component_test

import (
	"sync"
	"syscall"
	"testing"
	"time"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSum is the whole path of a sum through both task services, without nodes, brokers and a network.
func BenchmarkSum(b *testing.B) {
	for _, c := range []struct {
		name     string
		inFlight int
	}{{"one", 1}, {"64", 64}} {
		b.Run(c.name, func(b *testing.B) {
			n := newNetwork(b)
			p, cons := n.addProvider(nil), n.addConsumer(nil)
			cons.mu.Lock()
			cons.ended = make(chan string, 1<<16)
			cons.mu.Unlock()
			slots := make(chan struct{}, c.inFlight)
			begin := cpu()
			b.ResetTimer()
			var wg sync.WaitGroup
			wg.Go(func() {
				for range b.N {
					<-cons.ended
					<-slots
				}
			})
			candidate := p.candidate()
			for range b.N {
				slots <- struct{}{}
				wg.Go(func() {
					_, _ = cons.try(&taskv1.SessionRequest{Command: &taskv1.SessionRequest_Create{Create: &taskv1.CreateTask{
						RequestId: app.NewID(), Spec: sumSpec("1", "2", "3"), Candidate: candidate}}})
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpu()-begin).Microseconds())/float64(b.N), "cpu-us/op")
			cons.mu.Lock()
			cons.ended = nil
			cons.mu.Unlock()
		})
	}
}
