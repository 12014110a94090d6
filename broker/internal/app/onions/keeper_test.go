package onions_test

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/torcontrol/torcontroltest"
	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
	"github.com/shallot-net/shallot/kit/fault"
)

const clientKey = "AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPQ"

func TestPublish(t *testing.T) {
	inWorld(t, func(w *world) {
		r := request(1)
		r.ClientKeys = []string{clientKey}
		id := w.publish(r)
		line := w.tor.Services()[id]
		for _, part := range []string{" Flags=Detach,V3Auth ", " Port=4001,unix:/run/shallot/a.sock", " MaxStreams=64", " PoWDefensesEnabled=1", " ClientAuthV3=" + clientKey} {
			if !strings.Contains(line+" ", part) {
				t.Errorf("no %q in %q", part, line)
			}
		}
		w.untilService(id, onions.ServicePublishing, 0)
		if took := w.untilService(id, onions.ServicePublished, time.Minute); took != time.Second {
			t.Errorf("published after %s", took)
		}
		w.until("three uploads", time.Second, func(_ onions.TorState, s map[string]onions.ServiceState) bool { return s[id].Uploads == 3 })
		before := len(w.tor.Heard("ADD_ONION"))
		w.publish(r)
		if now := len(w.tor.Heard("ADD_ONION")); now != before || len(w.tor.Heard("DEL_ONION")) != 0 {
			t.Errorf("the same request again was %d commands", now-before)
		}
		w.untilService(id, onions.ServicePublished, 0)
		r.Socket, r.ClientKeys = "/run/shallot/b.sock", nil
		w.publish(r)
		if line := w.tor.Services()[id]; !strings.Contains(line, "b.sock") || strings.Contains(line, "V3Auth") {
			t.Errorf("after another request it is %q", line)
		}
		w.untilService(id, onions.ServicePublished, time.Minute)
		if err := w.Withdraw(w.t.Context(), id); err != nil || len(w.tor.Services()) != 0 {
			t.Errorf("withdrawn: %v, %d services are left", err, len(w.tor.Services()))
		}
		if err := w.Withdraw(w.t.Context(), id); err != nil {
			t.Errorf("withdrawn again: %v", err)
		}
		synctest.Wait()
		if n := len(w.records.get()); n != 0 {
			t.Errorf("%d records are left", n)
		}
	})
}

func TestNothingIsLogged(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Uploads = 0 })
		id := w.publish(request(1))
		if err := w.Authorize(w.t.Context(), id, request(2).Seed); err != nil {
			w.t.Fatal(err)
		}
		w.tor.Other(idOf(t, request(3)), false)
		err := w.fails(onions.ReasonTaken, func(ctx context.Context) error { _, err := w.Publish(ctx, request(3)); return err })
		pass(5 * time.Minute)
		w.tor.Kill()
		w.untilTor(onions.TorUnreachable, 0)
		text := w.log.String() + err.Error()
		add := w.tor.Heard("ADD_ONION")[0].Line
		for _, secret := range []string{id, idOf(t, request(3)), strings.Fields(add)[1], base64.StdEncoding.EncodeToString(request(2).Seed)} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in\n%s", secret, text)
			}
		}
		if !strings.Contains(text, "made anew") {
			t.Errorf("the log is\n%s", text)
		}
	})
}

// A burst loses descriptors: one after the other, and few before tor is online, since all that it has then begin at once.
func TestPacing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Progress, b.Tag = 50, "loading_descriptors" })
		w.untilTor(onions.TorStarting, 11*time.Second)
		const n = 40
		start := time.Now()
		done := make(chan error, n)
		for i := range n {
			go func() { _, err := w.Publish(w.t.Context(), request(i)); done <- err }()
		}
		pass(30 * time.Second)
		if have := len(w.tor.Services()); have != 5 {
			t.Errorf("%d services are at a tor that is not online", have)
		}
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Progress, b.Tag = 100, "done" })
		w.tor.Emit(`STATUS_CLIENT NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"`)
		for range n {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took < 36*time.Second || took > 38*time.Second {
			t.Errorf("it took %s", took)
		}
		added := w.tor.Heard("ADD_ONION")
		for i := range added[1:] {
			if gap := added[i+1].At.Sub(added[i].At); gap < 200*time.Millisecond {
				t.Errorf("%s between two", gap)
			}
		}
	})
}

func TestBounds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.kill()
		w.most = 2
		w.start()
		w.publish(request(1))
		w.publish(request(2))
		w.fails(onions.ReasonTooMany, func(ctx context.Context) error { _, err := w.Publish(ctx, request(3)); return err })
		w.publish(request(2))
		if err := w.Withdraw(w.t.Context(), idOf(t, request(1))); err != nil {
			w.t.Fatal(err)
		}
		w.publish(request(3))
		for reason, change := range map[string]func(r *onionsvc.Request){
			"KEY_INVALID": func(r *onionsvc.Request) { r.Seed = r.Seed[1:] }, "PORT_INVALID": func(r *onionsvc.Request) { r.Port = 70000 },
			"SOCKET_INVALID": func(r *onionsvc.Request) { r.Socket = "/a\r\nSIGNAL HALT" }, "CLIENT_KEY_INVALID": func(r *onionsvc.Request) { r.ClientKeys = []string{"x y"} },
		} {
			r := request(4)
			change(&r)
			w.fails(reason, func(ctx context.Context) error { _, err := w.Publish(ctx, r); return err })
		}
		w.fails("SERVICE_ID_INVALID", func(ctx context.Context) error { return w.Withdraw(ctx, "x\r\nSIGNAL HALT") })
		w.fails("SERVICE_ID_INVALID", func(ctx context.Context) error { return w.Authorize(ctx, "x", make([]byte, 32)) })
		w.fails("CLIENT_KEY_INVALID", func(ctx context.Context) error { return w.Authorize(ctx, idOf(t, request(1)), make([]byte, 31)) })
	})
}

// Where nobody takes the descriptor the service is made anew, after 30 seconds and then after longer.
func TestNotPublishedInTime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Uploads = 0 })
		id := w.publish(request(1))
		pass(4 * time.Minute)
		added := w.tor.Heard("ADD_ONION")
		if len(added) < 4 || len(w.tor.Heard("DEL_ONION")) != len(added)-1 {
			w.t.Fatalf("%d adds", len(added))
		}
		for i, least := range []time.Duration{24, 36, 54} {
			if gap := added[i+1].At.Sub(added[i].At); gap < least*time.Second || gap > least*time.Second*3/2+time.Second {
				t.Errorf("it was made anew after %s", gap)
			}
		}
		// A descriptor of the service that was there before is on its way still: it leads nowhere.
		w.tor.Emit("HS_DESC UPLOADED " + id + " UNKNOWN $A~a")
		pass(time.Second)
		w.untilService(id, onions.ServicePublishing, 0)
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Uploads = 1 })
		w.untilService(id, onions.ServicePublished, 5*time.Minute)
		at := len(w.tor.Heard("ADD_ONION"))
		pass(time.Hour)
		if len(w.tor.Heard("ADD_ONION")) != at {
			t.Error("a published service was made anew")
		}
		// tor gives directories a new descriptor within two hours; where that stops, they forget it after three.
		w.tor.Emit("HS_DESC UPLOADED " + id + " UNKNOWN $A~a")
		pass(170 * time.Minute)
		w.untilService(id, onions.ServicePublished, 0)
		if len(w.tor.Heard("ADD_ONION")) != at {
			t.Error("a published service was made anew")
		}
		w.untilService(id, onions.ServicePublishing, 15*time.Minute)
		w.untilService(id, onions.ServicePublished, time.Minute)
		if len(w.tor.Heard("ADD_ONION")) != at+1 {
			t.Error("a service that directories forgot was not made anew")
		}
	})
}

func TestTaken(t *testing.T) {
	inWorld(t, func(w *world) {
		id := idOf(t, request(1))
		w.tor.Other(id, false) // of a torrc, or of another controller's connection
		w.fails(onions.ReasonTaken, func(ctx context.Context) error { _, err := w.Publish(ctx, request(1)); return err })
		pass(2 * time.Minute)
		if n := len(w.tor.Heard("ADD_ONION")); n < 3 || n > 15 {
			t.Errorf("%d tries in two minutes", n)
		}
		// A detached one of that key, of which nothing is written down, is made anew.
		two := idOf(t, request(2))
		w.tor.Other(two, true)
		w.publish(request(2))
		if line := w.tor.Services()[two]; !strings.HasPrefix(line, "ADD_ONION") {
			t.Errorf("it is still %q", line)
		}
	})
}

func TestRejected(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Replies["ADD_ONION"] = "551 No room at 192.0.2.1\r\n" })
		err := w.fails(onions.ReasonRejected, func(ctx context.Context) error { _, err := w.Publish(ctx, request(1)); return err })
		if strings.Contains(err.Error(), "192.0.2.1") {
			t.Errorf("tor's words are in %v", err)
		}
		w.tor.Change(func(b *torcontroltest.Behaviour) { clear(b.Replies) })
		w.untilService(idOf(t, request(1)), onions.ServicePublished, time.Minute)
		w.publish(request(1))
	})
}

func TestProofOfWork(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.ProofOfWork = false })
		w.publish(request(1))
		w.publish(request(2))
		if n := len(w.tor.Heard("ADD_ONION")); n != 3 {
			t.Errorf("%d tries for two services of a tor without proof of work", n)
		}
	})
}

func TestAuthorize(t *testing.T) {
	inWorld(t, func(w *world) {
		id, key := idOf(t, request(1)), request(2).Seed
		for range 2 {
			if err := w.Authorize(w.t.Context(), id, key); err != nil {
				w.t.Fatal(err)
			}
		}
		if n := len(w.tor.Heard("ONION_CLIENT")); n != 1 || w.tor.Client(id) != base64.StdEncoding.EncodeToString(key) {
			t.Errorf("%d commands, tor has %q", n, w.tor.Client(id))
		}
		if err := w.Authorize(w.t.Context(), id, request(3).Seed); err != nil {
			w.t.Fatal(err)
		}
		w.tor.Kill()
		w.untilTor(onions.TorUnreachable, 0)
		w.tor.Restart()
		w.untilTor(onions.TorOnline, 10*time.Second)
		if err := w.Authorize(w.t.Context(), id, request(3).Seed); err != nil || w.tor.Client(id) != base64.StdEncoding.EncodeToString(request(3).Seed) {
			t.Errorf("after a restart of tor: %v, it has %q", err, w.tor.Client(id))
		}
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Replies["ONION_CLIENT_AUTH_ADD"] = "512 Bad\r\n" })
		w.fails("CLIENT_KEY_INVALID", func(ctx context.Context) error { return w.Authorize(ctx, id, request(4).Seed) })
	})
}

func TestDeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		w.untilTor(onions.TorOnline, time.Second)
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Silent = true })
		err := w.fails(fault.ReasonDeadline, func(ctx context.Context) error { _, err := w.Publish(ctx, request(1)); return err })
		if !strings.Contains(err.Error(), "it is kept") {
			t.Error(err)
		}
		w.untilTor(onions.TorUnreachable, 40*time.Second) // it hangs
		w.tor.Change(func(b *torcontroltest.Behaviour) { b.Silent = false })
		w.untilService(idOf(t, request(1)), onions.ServicePublished, time.Minute)
	})
}
