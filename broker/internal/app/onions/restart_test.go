package onions_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/torcontrol/torcontroltest"
	"github.com/shallot-net/shallot/broker/internal/app/onions"
)

func TestAdoption(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two, three := w.publish(request(1)), w.publish(request(2)), w.publish(request(3))
		others := idOf(t, request(4))
		w.tor.Other(others, true)
		for _, id := range []string{one, two, three} {
			w.untilService(id, onions.ServicePublished, 10*time.Second)
		}
		synctest.Wait()
		w.kill()
		if n := len(w.tor.Services()); n != 4 {
			w.t.Fatalf("without the process tor has %d services", n)
		}
		w.start()
		commands := len(w.tor.Heard("ADD_ONION"))
		w.publish(request(1))
		w.untilService(one, onions.ServicePublished, 0) // as it was before
		if len(w.tor.Heard("ADD_ONION")) != commands || len(w.tor.Heard("DEL_ONION")) != 0 {
			t.Error("a service that tor has was made anew")
		}
		changed := request(2)
		changed.Port = 4002
		w.publish(changed)
		if line := w.tor.Services()[two]; !strings.Contains(line, "Port=4002,") {
			t.Errorf("it is still %q", line)
		}
		pass(50 * time.Second)
		if w.tor.Services()[three] == "" {
			t.Error("a service was ended before anybody could ask for it again")
		}
		pass(15 * time.Second)
		left := w.tor.Services()
		if left[three] != "" || left[one] == "" || left[two] == "" || left[others] == "" {
			t.Errorf("after a minute tor has %d services", len(left))
		}
		if n := len(w.records.get()); n != 2 {
			t.Errorf("%d records", n)
		}
		if err := w.Withdraw(w.t.Context(), others); err != nil || w.tor.Services()[others] == "" {
			t.Errorf("another program's service was ended (%v)", err)
		}
	})
}

// Killed between the command and its answer, with the record written before: it is adopted.
func TestKilledWhileAdding(t *testing.T) {
	inWorld(t, func(w *world) {
		w.untilTor(onions.TorOnline, time.Second)
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Uploads = 0 })
		id := w.publish(request(1))
		w.kill() // nobody has taken its descriptor
		w.start()
		w.publish(request(1))
		w.untilService(id, onions.ServicePublishing, 0)
		w.tor.Emit("HS_DESC UPLOADED " + id + " UNKNOWN $A~a")
		w.untilService(id, onions.ServicePublished, time.Second)
		if n := len(w.tor.Heard("ADD_ONION")); n != 1 {
			t.Errorf("%d adds", n)
		}
	})
}

func TestTornRecords(t *testing.T) {
	inWorld(t, func(w *world) {
		id, other := w.publish(request(1)), w.publish(request(2))
		w.kill()
		w.records.set(true, false)
		w.start()
		w.publish(request(1))
		if len(w.tor.Heard("ADD_ONION")) != 3 || len(w.tor.Heard("DEL_ONION")) != 1 {
			t.Error("a service of which nothing is known was not made anew")
		}
		w.untilService(id, onions.ServicePublished, 10*time.Second)
		pass(2 * time.Minute)
		if w.tor.Services()[other] == "" {
			t.Error("a service that may be another program's was ended")
		}
		if !strings.Contains(w.log.String(), "torn") {
			t.Errorf("the log is %s", w.log)
		}
	})
}

func TestFullDisk(t *testing.T) {
	inWorld(t, func(w *world) {
		w.records.set(false, true)
		w.untilService(w.publish(request(1)), onions.ServicePublished, 10*time.Second)
		if !strings.Contains(w.log.String(), "no space left") {
			t.Errorf("the log is %s", w.log)
		}
	})
}

func TestTorRestarts(t *testing.T) {
	inWorld(t, func(w *world) {
		id := w.publish(request(1))
		w.untilService(id, onions.ServicePublished, 10*time.Second)
		for range 3 {
			w.tor.Kill()
			if took := w.untilTor(onions.TorUnreachable, time.Second); took != 0 {
				t.Errorf("its end was seen after %s", took)
			}
			w.untilService(id, onions.ServiceAdding, 0)
			err := w.fails(onions.ReasonUnreachable, func(ctx context.Context) error { _, err := w.Publish(ctx, request(2)); return err })
			if !strings.Contains(err.Error(), "control") {
				t.Error(err)
			}
			pass(20 * time.Second)
			w.tor.Change(func(b *torcontroltest.Behaviour) { b.Progress, b.Tag = 30, "loading_status" })
			w.tor.Restart()
			w.untilTor(onions.TorStarting, 10*time.Second)
			w.tor.Change(func(b *torcontroltest.Behaviour) { b.Progress, b.Tag = 100, "done" })
			w.tor.Emit(`STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"`)
			w.untilTor(onions.TorOnline, 0)
			// What was added before tor was online is published by tor, or made anew.
			for _, id := range []string{id, idOf(t, request(2))} {
				w.untilService(id, onions.ServicePublished, time.Minute)
			}
		}
	})
}

// The connection ends and tor does not: nothing is made anew.
func TestConnectionCut(t *testing.T) {
	inWorld(t, func(w *world) {
		id := w.publish(request(1))
		w.untilService(id, onions.ServicePublished, 10*time.Second)
		w.tor.Cut()
		w.untilTor(onions.TorUnreachable, time.Second)
		w.untilService(id, onions.ServicePublished, time.Second)
		// A machine that is too busy for tor to answer is none that has lost the network.
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Silent = true })
		w.untilTor(onions.TorUnreachable, time.Minute)
		pass(time.Minute)
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Silent = false })
		w.untilService(id, onions.ServicePublished, time.Minute)
		pass(time.Minute)
		w.untilService(id, onions.ServicePublished, 0)
		if n := len(w.tor.Heard("ADD_ONION")); n != 1 {
			t.Errorf("%d adds", n)
		}
		w.tor.End(id) // another controller
		pass(15 * time.Second)
		w.untilService(id, onions.ServicePublished, 0)
		if n := len(w.tor.Heard("ADD_ONION")); n != 2 || w.tor.Services()[id] == "" {
			t.Errorf("%d adds after another controller ended it", n)
		}
	})
}

func TestNetworkLost(t *testing.T) {
	inWorld(t, func(w *world) {
		id := w.publish(request(1))
		w.untilService(id, onions.ServicePublished, 10*time.Second)
		steps := []struct {
			event, detail string
			change        func(b *torcontroltest.Behaviour)
		}{
			{"NETWORK_LIVENESS DOWN", "nothing is heard", func(b *torcontroltest.Behaviour) { b.Live = false }},
			{"STATUS_CLIENT NOTICE CIRCUIT_NOT_ESTABLISHED REASON=CLOCK_JUMPED", "clock jumped", func(b *torcontroltest.Behaviour) { b.Circuits = false }},
			{"STATUS_CLIENT NOTICE NOT_ENOUGH_DIR_INFO", "too few relays", func(b *torcontroltest.Behaviour) { b.Directory = false }},
			{`STATUS_CLIENT WARN BOOTSTRAP PROGRESS=10 TAG=conn_done SUMMARY="Connected to 192.0.2.7" WARNING="to 192.0.2.7" REASON=TIMEOUT HOST="A" HOSTADDR="192.0.2.7:443"`, "nobody answers", func(b *torcontroltest.Behaviour) { b.Progress, b.Tag = 10, "conn_done" }},
			{`STATUS_CLIENT WARN BOOTSTRAP PROGRESS=10 TAG=192.0.2.7 SUMMARY="x" REASON=192.0.2.7`, "not known here", func(b *torcontroltest.Behaviour) {}},
		}
		for _, s := range steps {
			w.tor.Change(s.change)
			w.tor.Emit(s.event)
			w.until(s.detail, time.Second, func(tor onions.TorState, _ map[string]onions.ServiceState) bool {
				if strings.Contains(tor.Detail, "192.0.2") {
					t.Errorf("an address is in %q", tor.Detail)
				}
				return tor.State == onions.TorStarting && strings.Contains(tor.Detail, s.detail)
			})
		}
		back := func() {
			w.tor.Change(func(b *torcontroltest.Behaviour) {
				b.Progress, b.Tag, b.Live, b.Circuits, b.Directory = 100, "done", true, true, true
			})
			for _, e := range []string{`STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"`, "NETWORK_LIVENESS UP", "STATUS_CLIENT NOTICE ENOUGH_DIR_INFO", "STATUS_CLIENT NOTICE CIRCUIT_ESTABLISHED"} {
				w.tor.Emit(e)
			}
			w.untilTor(onions.TorOnline, 0)
		}
		back()
		w.untilService(id, onions.ServicePublished, 0) // a moment without network changes nothing
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Live = false })
		w.untilTor(onions.TorStarting, 11*time.Second) // without an event, too
		pass(time.Minute)
		back()
		w.untilService(id, onions.ServicePublishing, 0)
		w.untilService(id, onions.ServicePublished, time.Minute)
		if n := len(w.tor.Heard("ADD_ONION")); n != 2 {
			t.Errorf("%d adds", n)
		}
	})
}
