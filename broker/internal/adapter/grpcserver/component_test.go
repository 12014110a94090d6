package grpcserver_test

import (
	"context"
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/testbroker"
	"github.com/shallot-net/shallot/kit/brokerclient"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

func TestSmoke(t *testing.T) {
	a, b := testbroker.Start(t, testbroker.Options{}), testbroker.Start(t, testbroker.Options{})
	a.Connect(b)
	ca, cb := brokerclient.New(a.Dial(), nil), brokerclient.New(b.Dial(), nil)
	defer ca.Close()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan *brokerv1.Delivery, 10)
	up := make(chan bool, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cb.Subscribe(ctx, &brokerv1.Open{Group: "node", Types: []eventv1.EventType{eventv1.EventType_EVENT_TYPE_PING}, Topics: []string{"metrics"}}, func(_ context.Context, d *brokerv1.Delivery) brokerclient.Answer {
			got <- d
			return brokerclient.Applied()
		}, brokerclient.SubscribeOptions{OnState: func(ok bool, _ error) { if ok { up <- true } }})
	}()
	<-up
	ev, _ := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_PING, &eventv1.Ping{})
	for range 5 {
		start := time.Now()
		ev, _ = brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_PING, &eventv1.Ping{})
		if err := ca.Send(t.Context(), "", b.ID, ev, brokerclient.SendOptions{Sign: true}); err != nil {
			t.Fatal(err)
		}
		t.Log(time.Since(start))
		d := <-got
		if d.GetEvent().GetId() != ev.Id || d.GetFromPeer() != a.ID || d.GetEvent().GetAuthor() != a.ID {
			t.Fatal(d)
		}
	}
	start := time.Now()
	for {
		me, _ := brokerclient.NewEvent(eventv1.EventType_EVENT_TYPE_METRIC_AVAILABLE, &eventv1.MetricAvailable{})
		if _, err := ca.Publish(t.Context(), "", "metrics", me, true); err != nil {
			t.Fatal(err)
		}
		select {
		case d := <-got:
			t.Log("gossip after", time.Since(start), d.GetTopic())
			cancel()
			<-done
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}
