package run

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// BenchmarkRunTask is a sum through two node services and six fakes in one process: what is left of it beside gRPC is
// node's own.
func BenchmarkRunTask(b *testing.B) {
	for _, parallel := range []int{1, 64} {
		b.Run(fmt.Sprint(parallel), func(b *testing.B) {
			w := newWorld(b)
			c := w.consumer(w.provider())
			c.knows(1)
			ctx := b.Context()
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(max(parallel/2, 1))
			b.ResetTimer()
			if parallel == 1 {
				for b.Loop() {
					c.run(ctx, "", sumOf("1", "2")).want(b, "3")
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n.Add(1)
					c.run(ctx, "", sumOf("1", "2")).want(b, "3")
				}
			})
		})
	}
}
