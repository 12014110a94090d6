package grpcserver_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/testbroker"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// BenchmarkSend is service to service: Send at one broker, acknowledged by a member of a group at the other, 256 bytes of payload. Both brokers,
// both services and this benchmark share one process.
func BenchmarkSend(b *testing.B) {
	for _, inFlight := range []int{1, 64} {
		for _, sign := range []bool{false, true} {
			b.Run(fmt.Sprintf("inflight=%d/signed=%v", inFlight, sign), func(b *testing.B) { benchmarkSend(b, inFlight, sign) })
		}
	}
}

func benchmarkSend(b *testing.B, inFlight int, sign bool) {
	from, to := testbroker.Start(b, testbroker.Options{}), testbroker.Start(b, testbroker.Options{})
	from.Connect(to)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	sub, err := to.Events.Subscribe(ctx)
	if err != nil {
		b.Fatal(err)
	}
	open := &brokerv1.Open{Group: "bench", Types: []eventv1.EventType{eventv1.EventType_EVENT_TYPE_TASK_LOG}}
	if err := sub.Send(&brokerv1.SubscribeRequest{Request: &brokerv1.SubscribeRequest_Open{Open: open}}); err != nil {
		b.Fatal(err)
	}
	if _, err := sub.Recv(); err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			r, err := sub.Recv()
			if err != nil {
				return
			}
			_ = sub.Send(&brokerv1.SubscribeRequest{Request: &brokerv1.SubscribeRequest_Ack{Ack: &brokerv1.Ack{DeliveryId: r.GetDelivery().GetDeliveryId()}}})
		}
	}()
	stream, err := from.Events.Send(ctx)
	if err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	sent := make(map[uint64]time.Time)
	took := make([]time.Duration, 0, b.N)
	slots := make(chan struct{}, inFlight)
	done := make(chan error, 1)
	go func() {
		for range b.N {
			r, err := stream.Recv()
			if err == nil && r.GetFault() != nil {
				err = fmt.Errorf("fault: %v", r.GetFault())
			}
			if err != nil {
				done <- err
				return
			}
			mu.Lock()
			took = append(took, time.Since(sent[r.GetSeq()]))
			delete(sent, r.GetSeq())
			mu.Unlock()
			<-slots
		}
		done <- nil
	}()
	payload := make([]byte, 0, 300)
	payload = append(payload, 0x0a, 0x80, 0x02) // task_id of 256 bytes
	for range 256 {
		payload = append(payload, 'a')
	}
	b.ResetTimer()
	for i := range b.N {
		slots <- struct{}{}
		seq := uint64(i + 1)
		e := &eventv1.Event{Id: fmt.Sprintf("%032x", seq), Type: eventv1.EventType_EVENT_TYPE_TASK_LOG, Payload: payload}
		mu.Lock()
		sent[seq] = time.Now()
		mu.Unlock()
		if err := stream.Send(&brokerv1.SendRequest{Seq: seq, PeerId: to.ID, Event: e, Sign: sign}); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
