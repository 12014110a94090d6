package app_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/shallot-net/shallot/broker/internal/app"
	"github.com/shallot-net/shallot/broker/internal/app/apptest"
	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/padding"
)

// TestWhatAnAnonymousNodeWrites: small events and acknowledgements are of one size, larger ones of few sizes; and either mode reads the other. What an open node writes is
// as long as it ever was.
func TestWhatAnAnonymousNodeWrites(t *testing.T) {
	const headers = 30 // of yamux and Noise
	for _, c := range []struct{ from, to string }{{app.ModeAnonymous, app.ModeAnonymous}, {app.ModeOpen, app.ModeAnonymous}, {app.ModeAnonymous, app.ModeOpen}, {app.ModeOpen, app.ModeOpen}} {
		t.Run(c.from+" to "+c.to, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var wrote []int
				n := apptest.NewNetwork()
				n.Wrote = func(size int) {
					mu.Lock()
					defer mu.Unlock()
					wrote = append(wrote, size)
				}
				in := func(mode string) func(*app.Config) { return func(cfg *app.Config) { cfg.Mode = mode } }
				w := &world{t: t, net: n, from: node(t, n, 1, in(c.from)), to: node(t, n, 2, in(c.to))}
				w.peer = idOf(t, w.to)
				defer closeAll(t, w.from, w.to)
				sub := w.subscribe()
				defer sub.Close()
				for i, size := range []int{0, 1, 400, 600, 5_000, 5_001, 100_000, 150_000} {
					e := &event.Event{ID: fmt.Sprintf("%032x", i+1), Type: logs, Payload: bytes.Repeat([]byte{byte(i)}, size)}
					plain, err := apptest.Codec{}.Encode(e)
					if err != nil {
						t.Fatal(err)
					}
					answer := make(chan error, 1)
					w.from.Send(app.Outgoing{Peer: w.peer, Event: e}, func(err error) { answer <- err })
					d := w.next(sub)
					if !bytes.Equal(d.Event.Payload, e.Payload) {
						t.Fatalf("a payload of %d bytes came as %d", size, len(d.Event.Payload))
					}
					sub.Ack(d.ID, delivery.Applied, "")
					if err := <-answer; err != nil {
						t.Fatal(err)
					}
					mu.Lock()
					sent := wrote[:len(wrote)-1]
					ack := wrote[len(wrote)-1]
					wrote = nil
					mu.Unlock()
					total := 0
					for _, n := range sent { // a large one is written in pieces
						total += n
					}
					wantSent, wantAck := len(plain)+5, 5+16+1
					if c.from == app.ModeAnonymous {
						wantSent = int(padding.Cells(int64(wantSent+4), headers))
					}
					if c.to == app.ModeAnonymous {
						wantAck = padding.Cell - headers
					}
					if total != wantSent || ack != wantAck {
						t.Errorf("a payload of %d bytes took %d bytes and %d to acknowledge, want %d and %d", size, total, ack, wantSent, wantAck)
					}
				}
			})
		})
	}
}

// TestWhatAnAnonymousNodeGossips: payloads are padded before they are signed, to few sizes; what is told of an open node is as long as it ever was, and either is
// checked as ever.
func TestWhatAnAnonymousNodeGossips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range []string{app.ModeAnonymous, app.ModeOpen} {
			b := node(t, apptest.NewNetwork(), 1, func(cfg *app.Config) { cfg.Mode = mode })
			for i, size := range []int{0, 250, 260, 1000, 1020, 1021, 2300, 2400, 60_000, 62_000} {
				e := &event.Event{ID: fmt.Sprintf("%032x", i+1), Type: event.MetricAvailable, Payload: bytes.Repeat([]byte{1}, size)}
				want := size
				if class := max(1<<10, int(padding.Size(int64(size+app.PayloadPadOverhead)))); mode == app.ModeAnonymous && class <= 63<<10 {
					want = class
				}
				signed, err := b.Sign("", e)
				if err != nil {
					t.Fatal(err)
				}
				if len(signed.Payload) != want || !bytes.HasPrefix(signed.Payload, e.Payload) || len(e.Payload) != size {
					t.Errorf("%s: a payload of %d bytes is signed as one of %d, want %d", mode, size, len(signed.Payload), want)
				}
				if size > 40_000 { // the bytes of this codec are larger
					continue
				}
				if told, err := b.Publish(t.Context(), "", event.TopicMetrics, e, true); err != nil || !bytes.Equal(told.Payload, signed.Payload) {
					t.Errorf("%s: what is signed is not what is told: %v", mode, err)
				}
			}
			other := &event.Event{ID: fmt.Sprintf("%032x", 99), Type: logs, Payload: []byte("x")}
			if signed, err := b.Sign("", other); err != nil || len(signed.Payload) != 1 {
				t.Errorf("%s: what is not gossiped is padded: %v", mode, err)
			}
			closeAll(t, b)
		}
	})
}
