package consumer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// plain encodes nothing: who is told when is what counts here.
type plain struct{ app.Codec }

func (plain) Encode(domain.Body) []byte { return nil }

// told are the moments at which personas let results go.
type told struct {
	mu sync.Mutex
	at map[string][]time.Time
	n  int
}

func (p *told) Push(_ context.Context, r app.Reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range r.Outbox {
		p.at[o.Persona] = append(p.at[o.Persona], time.Now())
		p.n++
	}
}

// Results of one persona are let go together. Those of different ones are not: that they were would show whose they are.
func TestPersonasLetGoAtTimesOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &told{at: map[string][]time.Time{}}
		s := &Service{cfg: Config{Pusher: p}, outbox: app.NewOutbox(plain{})}
		s.let = newReleaser(s)
		for i := range 60 {
			s.let.add(0, app.ReleaseRow{TaskID: fmt.Sprint(i), Attempt: 1, Persona: fmt.Sprint("t-", i%20), Peer: "p"})
		}
		<-time.After(releaseDelay + releaseSpread) // virtual
		synctest.Wait()
		seen := map[time.Time]bool{}
		for persona, at := range p.at {
			if len(at) != 1 || seen[at[0]] {
				t.Errorf("%s says at %v that its three results have arrived, and another may at that moment too", persona, at)
			}
			seen[at[0]] = true
		}
		if p.n != 20 {
			t.Errorf("%d of 20 personas have let their results go", p.n)
		}
		s.let.stop()
	})
}
