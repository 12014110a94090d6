package app

import (
	"fmt"
	"testing"
	"time"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// placeMany places as many shards of a job at the same moment, and says how many left from which persona.
func placeMany(t *testing.T, m *masquerade, p *Personas, n int, need domain.Need) map[string]int {
	t.Helper()
	left := make(chan string, n)
	for i := range n {
		shard := need
		shard.TaskID = fmt.Sprint(need.Job, i, time.Now())
		go func() {
			c, _ := p.Place(t.Context(), &shard)
			left <- c.GetPersona()
		}()
	}
	count := map[string]int{}
	for range n {
		count[<-left]++
	}
	var used []*taskv1.PersonaUse
	for name := range count {
		used = append(used, &taskv1.PersonaUse{Persona: name, JobId: need.Job})
	}
	m.set(func() { m.used = append(m.used, used...) })
	return count
}

// However many shards are placed at the same moment, and however long it takes to open a persona, a job has no more than it may.
func TestAJobsPersonasAreBoundedExactly(t *testing.T) {
	for _, warm := range []int{1, 2, 4} {
		masked(t, PersonasConfig{Warm: warm, PerJob: 3, Most: 20}, func(t *testing.T, m *masquerade, p *Personas) {
			time.Sleep(time.Minute) //nolint:forbidigo // virtual time: those in advance are open
			m.set(func() { m.slow = true })
			for job, want := range map[string]int{"as set": 3, "five": 5, "one": 1} {
				need := domain.Need{Job: job}
				if job != "as set" {
					need.Personas = want
				}
				count := placeMany(t, m, p, 30, need)
				if len(count) != want || count[""] > 0 {
					t.Errorf("%d of 30 shards that may leave from %d leave from %v", 30-count[""], want, count)
				}
				for name, n := range count {
					if n != 30/want {
						t.Errorf("%d of 30 leave from %s, which is no even share of %d", n, name, want)
					}
				}
			}
			if _, held := p.Figures(); held != 9 {
				t.Errorf("%d are held", held)
			}
		})
	}
}

// Where no more can be had, the shards of a job share those that there are, and a job that has none waits.
func TestAJobSharesWhatThereIs(t *testing.T) {
	masked(t, PersonasConfig{Warm: 1, Most: 3}, func(t *testing.T, m *masquerade, p *Personas) {
		m.set(func() { m.slow = true })
		for range 2 { // by the second time that one is open which was being opened in advance
			time.Sleep(time.Minute) //nolint:forbidigo // virtual time
			if count := placeMany(t, m, p, 12, domain.Need{Job: "j", Personas: 64}); len(count) > 3 || count[""] > 0 {
				t.Errorf("12 shards leave from %v, and 3 may be open", count)
			}
		}
		if c, _ := p.Place(t.Context(), &domain.Need{TaskID: "k", Job: "k"}); c != nil {
			t.Error("another job has one, too")
		}
	})
}

// What cannot be opened takes no place of a job's.
func TestAPersonaThatCannotBeOpenedTakesNoPlace(t *testing.T) {
	masked(t, PersonasConfig{Warm: 1, PerJob: 2}, func(t *testing.T, m *masquerade, p *Personas) {
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		m.set(func() { m.broken, m.slow = true, true })
		place(t, p, &domain.Need{TaskID: "uses the one that is ready"})
		if count := placeMany(t, m, p, 8, domain.Need{Job: "j"}); count[""] != 8 {
			t.Errorf("they leave from %v", count)
		}
		m.set(func() { m.broken = false })
		if count := placeMany(t, m, p, 8, domain.Need{Job: "j"}); len(count) != 2 || count[""] > 0 {
			t.Errorf("they leave from %v", count)
		}
	})
}

// A job's personas are counted over a restart of this process.
func TestAJobsPersonasOfAnEarlierLifeCount(t *testing.T) {
	left := func(m *masquerade) {
		m.open = append(m.open, "t-one", "t-two", "t-other")
		m.used = []*taskv1.PersonaUse{{Persona: "t-one", JobId: "j"}, {Persona: "t-one", PeerId: m.key.ID, JobId: "j"}, {Persona: "t-two", JobId: "j"}, {Persona: "t-other"}}
	}
	maskedAfter(t, PersonasConfig{Warm: 1, PerJob: 3}, left, func(t *testing.T, m *masquerade, p *Personas) {
		count := placeMany(t, m, p, 9, domain.Need{Job: "j"})
		if len(count) != 3 || count["t-one"] != 3 || count["t-two"] != 3 {
			t.Errorf("they leave from %v", count)
		}
		m.set(func() { m.used = nil })
		time.Sleep(5 * time.Minute) //nolint:forbidigo // virtual time
		if _, held := p.Figures(); held != 0 {
			t.Errorf("%d are held when nothing needs them", held)
		}
	})
}
