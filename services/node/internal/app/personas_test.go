package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
	"github.com/shallot-net/shallot/services/node/internal/fake"
)

// masquerade is the broker, a provider and the task service, as personas see them.
type masquerade struct {
	personas *Personas
	key      fake.Key
	mu       sync.Mutex
	open     []string
	opened   int
	closed   []string
	meetings []string // personas that asked the provider for its announcement
	used     []*taskv1.PersonaUse
	beats    int
	moments  []time.Time   // at which a persona asked for a sign of life, or was closed
	cut      []string      // personas whose connections were made anew
	down     bool          // the provider
	dial     time.Duration // how long it takes to be connected; a second when 0
	stale    bool          // a connection stands by which nothing comes, until it is cut
	liar     bool          // it hands over another's announcement
	deaf     bool          // the task service does not answer
	second   bool          // another process of the node sees to personas
	slow     bool          // it takes a second to open a persona
	broken   bool          // none can be opened
	puzzle   *eventv1.Puzzle
}

func (m *masquerade) OpenPersona(ctx context.Context, name string) error {
	m.mu.Lock()
	slow := m.slow
	m.mu.Unlock()
	if slow {
		sleep(ctx, time.Second)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken {
		return errUnreachable
	}
	m.open = append(m.open, name)
	m.opened++
	return nil
}

func (m *masquerade) ClosePersona(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = slices.DeleteFunc(m.open, func(s string) bool { return s == name })
	m.closed, m.moments = append(m.closed, name), append(m.moments, time.Now())
	return nil
}

func (m *masquerade) Personas(context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.open), nil
}

func (m *masquerade) DisconnectAs(_ context.Context, persona, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut, m.stale = append(m.cut, persona), false
	return nil
}

func uses(names ...string) (out []*taskv1.PersonaUse) {
	for _, n := range names {
		out = append(out, &taskv1.PersonaUse{Persona: n})
	}
	return out
}

func (m *masquerade) PersonasInUse(context.Context) ([]*taskv1.PersonaUse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deaf {
		return nil, errors.New("no session")
	}
	if m.second {
		return nil, fault.FailedPrecondition("NOT_CARRYING", "another process sees to them")
	}
	return slices.Clone(m.used), nil
}

func (m *masquerade) ConnectAs(ctx context.Context, persona, peer string, _ []string) error {
	m.mu.Lock()
	dial := m.dial
	m.mu.Unlock()
	if sleep(ctx, max(dial, time.Second)); ctx.Err() != nil {
		return ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down || peer != m.key.ID || !slices.Contains(m.open, persona) {
		return errUnreachable
	}
	return nil
}

func (m *masquerade) SendEventAs(ctx context.Context, persona, peer string, typ eventv1.EventType, id string, payload proto.Message, _ time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if typ == eventv1.EventType_EVENT_TYPE_PING {
		m.beats, m.moments = m.beats+1, append(m.moments, time.Now())
		if m.down {
			return fault.Unavailable("UNREACHABLE", "no answer")
		}
		return nil
	}
	if d, ok := payload.(*eventv1.Discover); !ok || !d.GetOwn() || d.GetLimit() != 0 || len(d.GetHas()) > 0 || len(d.GetTypes()) > 0 || typ != eventv1.EventType_EVENT_TYPE_DISCOVER {
		return fault.InvalidArgument("TELLING", "the question says more than it must")
	}
	m.meetings = append(m.meetings, persona)
	if m.stale {
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return ctx.Err()
	}
	key := m.key
	if m.liar {
		key = fake.NewKey()
	}
	b, _ := proto.Marshal(&eventv1.DiscoverResponse{InReplyTo: id, Announcements: []*eventv1.Event{fake.Announce(key.ID, 7, []string{"/memory/1"}, time.Minute, key.Sign, "sum")}, Puzzle: m.puzzle})
	go m.personas.DiscoverResponse(persona, peer, &eventv1.Event{Payload: b})
	return nil
}

// look gives a test what has happened so far.
func (m *masquerade) look() (opened, meetings int, closed []string) {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opened, len(m.meetings), slices.Clone(m.closed)
}

func (m *masquerade) beaten() int {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.beats
}

func (m *masquerade) count() int {
	_, meetings, _ := m.look()
	return meetings
}

func (m *masquerade) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// Place always chooses the one provider, by what gossip says of it.
func (m *masquerade) Place(context.Context, *domain.Need) (*taskv1.Candidate, *domain.Why) {
	return &taskv1.Candidate{PeerId: m.key.ID, SealingKey: "as gossip says", Addresses: []string{"/memory/1"}}, &domain.Why{Because: domain.BecauseOnlyOne, Detail: "it is the only one"}
}
func (m *masquerade) Keepers(*domain.Need, string) []*taskv1.Candidate { return nil }

func masked(t *testing.T, cfg PersonasConfig, f func(t *testing.T, m *masquerade, p *Personas)) {
	t.Helper()
	maskedAfter(t, cfg, func(*masquerade) {}, f)
}

// maskedAfter is masked, with what is there before the process begins.
func maskedAfter(t *testing.T, cfg PersonasConfig, before func(m *masquerade), f func(t *testing.T, m *masquerade, p *Personas)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &masquerade{key: fake.NewKey()}
		before(m)
		p := NewPersonas(cfg, m, m, m, slog.New(slog.DiscardHandler))
		m.personas = p
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = p.Run(ctx) }()
		f(t, m, p)
		cancel()
		<-done
	})
}

func place(t *testing.T, p *Personas, need *domain.Need) string {
	t.Helper()
	c, why := p.Place(t.Context(), need)
	if c == nil {
		t.Fatalf("it is not placed: %s", why.Detail)
	}
	if c.GetSealingKey() == "as gossip says" || c.GetSealingKey() == "" {
		t.Errorf("the task is sealed to %q, which is not what the provider handed to the persona", c.GetSealingKey())
	}
	m := p.use.(*masquerade)
	m.set(func() { m.used = append(m.used, uses(c.GetPersona())...) }) // as the task service commits it
	return c.GetPersona()
}

func TestEveryTaskHasAPersonaOfItsOwn(t *testing.T) {
	masked(t, PersonasConfig{}, func(t *testing.T, m *masquerade, p *Personas) {
		seen := map[string]bool{}
		for i := range 20 {
			name := place(t, p, &domain.Need{TaskID: fmt.Sprint(i)})
			if seen[name] || name == "" {
				t.Errorf("task %d leaves from %q, as another did", i, name)
			}
			seen[name] = true
		}
		if again := place(t, p, &domain.Need{TaskID: "3"}); !seen[again] || m.count() != 20 {
			t.Errorf("a task that is placed again leaves from a new persona, or meets its provider again: %d meetings", m.count())
		}
	})
}

func TestShardsShareSomePersonas(t *testing.T) {
	masked(t, PersonasConfig{PerJob: 3}, func(t *testing.T, m *masquerade, p *Personas) {
		count := map[string]int{}
		for i := range 30 {
			count[place(t, p, &domain.Need{TaskID: fmt.Sprint(i), Job: "j"})]++
		}
		if len(count) != 3 || m.count() != 3 {
			t.Errorf("30 shards leave from %v and made %d meetings", count, m.count())
		}
		for name, n := range count {
			if n != 10 {
				t.Errorf("%d of 30 leave from %s", n, name)
			}
		}
		if other := place(t, p, &domain.Need{TaskID: "x", Job: "k"}); count[other] > 0 {
			t.Error("two jobs share a persona")
		}
	})
}

// Of several processes of a node one sees to personas. When another takes over, this one leaves all as they are, for that one to find; and what it finds itself in its turn it closes.
func TestOneProcessSeesToPersonas(t *testing.T) {
	masked(t, PersonasConfig{Warm: 3}, func(t *testing.T, m *masquerade, p *Personas) {
		<-time.After(20 * time.Second)
		name := place(t, p, &domain.Need{TaskID: "1"})
		<-time.After(20 * time.Second)
		opened, _, _ := m.look()
		m.set(func() { m.second = true })
		<-time.After(time.Hour)
		warm, held := p.Figures()
		if again, _, closed := m.look(); again != opened || len(closed) > 0 || warm+held > 0 {
			t.Errorf("beside another process it opened %d more, closed %v and has %d and %d", again-opened, closed, warm, held)
		}
		beats := m.beaten()
		<-time.After(time.Minute)
		if more := m.beaten() - beats; more > 0 {
			t.Errorf("it asks for %d signs of life that the other one asks for", more)
		}
		m.set(func() { m.second = false })
		<-time.After(time.Hour)
		warm, _ = p.Figures()
		if _, _, closed := m.look(); warm != 3 || len(closed) != 3 || slices.Contains(closed, name) {
			t.Errorf("in its turn it has %d ready, and closed %v", warm, closed)
		}
	})
}

// Personas are opened before they are needed and not all at once, and closed some time after nothing needs them.
func TestPersonasComeAndGo(t *testing.T) {
	masked(t, PersonasConfig{Warm: 3}, func(t *testing.T, m *masquerade, p *Personas) {
		if opened, _, _ := m.look(); opened != 1 {
			t.Errorf("%d are opened at once", opened)
		}
		time.Sleep(20 * time.Second) //nolint:forbidigo // virtual time
		if opened, meetings, _ := m.look(); opened != 3 || meetings > 0 {
			t.Errorf("%d are ready, and %d have met somebody", opened, meetings)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		if opened, _, closed := m.look(); opened != 3 || len(closed) > 0 {
			t.Errorf("%d were opened and %v closed while nothing happened", opened, closed)
		}
		began := time.Now()
		name := place(t, p, &domain.Need{TaskID: "1"})
		if d := time.Since(began); d != time.Second {
			t.Errorf("a task waited for %s, the provider is a second away", d)
		}
		m.set(func() { m.used = uses(name) })
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		if _, _, closed := m.look(); slices.Contains(closed, name) {
			t.Error("it is closed while it is needed")
		}
		m.set(func() { m.used, m.deaf = nil, true })
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		if _, _, closed := m.look(); slices.Contains(closed, name) {
			t.Error("it is closed while nobody says whether it is needed")
		}
		m.set(func() { m.deaf = false })
		time.Sleep(2 * time.Minute) //nolint:forbidigo // virtual time
		if _, _, closed := m.look(); !slices.Equal(closed, []string{name}) {
			t.Errorf("%v are closed", closed)
		}
		if warm, held := p.Figures(); warm != 3 || held != 0 {
			t.Errorf("%d are ready and %d in use", warm, held)
		}
	})
}

// What an earlier life has left is closed, but for what its tasks still need.
func TestPersonasOfAnEarlierLife(t *testing.T) {
	masked(t, PersonasConfig{Warm: 1}, func(t *testing.T, m *masquerade, p *Personas) {
		m.set(func() { m.open, m.used = append(m.open, "t-needed", "t-over", "bulk"), uses("t-needed") })
		time.Sleep(5 * time.Minute) //nolint:forbidigo // virtual time
		if _, _, closed := m.look(); !slices.Equal(closed, []string{"t-over"}) {
			t.Errorf("%v are closed", closed)
		}
	})
}

func TestPersonasHaveABound(t *testing.T) {
	masked(t, PersonasConfig{Warm: 1, Most: 2}, func(t *testing.T, m *masquerade, p *Personas) {
		one, two := place(t, p, &domain.Need{TaskID: "1"}), place(t, p, &domain.Need{TaskID: "2"})
		m.set(func() { m.used = uses(one, two) })
		if c, why := p.Place(t.Context(), &domain.Need{TaskID: "3"}); c != nil || why.Detail == "" || why.Because != domain.BecauseNoPersona {
			t.Errorf("a third one is placed: %v", c)
		}
		m.set(func() { m.used = nil })
		time.Sleep(5 * time.Minute) //nolint:forbidigo // virtual time
		place(t, p, &domain.Need{TaskID: "3"})
	})
}

func TestPersonasMeetNobodyElse(t *testing.T) {
	masked(t, PersonasConfig{Introduce: 10 * time.Second}, func(t *testing.T, m *masquerade, p *Personas) {
		var lost []string
		p.Unreachable = func(peer string) { lost = append(lost, peer) }
		m.set(func() { m.down = true })
		if c, _ := p.Place(t.Context(), &domain.Need{TaskID: "1"}); c != nil {
			t.Error("a task is placed where nobody is")
		}
		m.set(func() { m.down, m.liar = false, true })
		if c, _ := p.Place(t.Context(), &domain.Need{TaskID: "1"}); c != nil {
			t.Error("a task is sealed to somebody else's key")
		}
		if len(lost) != 2 || lost[0] != m.key.ID {
			t.Errorf("%v could not be reached", lost)
		}
		m.set(func() { m.liar = false })
		place(t, p, &domain.Need{TaskID: "1"})
		b, _ := proto.Marshal(&eventv1.DiscoverResponse{InReplyTo: "made up"})
		if v := p.DiscoverResponse("t-x", m.key.ID, &eventv1.Event{Payload: b}); v.Reason != "NOT_ASKED" {
			t.Errorf("an answer that nobody asked for: %+v", v)
		}
		if v := p.DiscoverResponse("t-x", m.key.ID, &eventv1.Event{Payload: []byte{0xff}}); v.Reason != "NOT_DECODABLE" {
			t.Errorf("an answer that is none: %+v", v)
		}
	})
}

// A provider that takes a minute to be reached has the task then; one that takes longer than the limit loses it, and is told of.
func TestSlowProviders(t *testing.T) {
	for name, test := range map[string]struct {
		dial, took time.Duration
		placed     bool
	}{"a minute": {time.Minute, time.Minute, true}, "five minutes": {5 * time.Minute, 90 * time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			masked(t, PersonasConfig{}, func(t *testing.T, m *masquerade, p *Personas) {
				var lost []string
				p.Unreachable = func(peer string) { lost = append(lost, peer) }
				m.set(func() { m.dial = test.dial })
				begin := time.Now()
				c, _ := p.Place(t.Context(), &domain.Need{TaskID: "1"})
				if took := time.Since(begin); took != test.took || (c != nil) != test.placed {
					t.Errorf("after %v it is placed: %v", took, c != nil)
				}
				if (len(lost) == 0) != test.placed {
					t.Errorf("%v could not be reached", lost)
				}
			})
		})
	}
}

// A connection may stand whose other end died with its tor. Who asks by it does not wait out all the time that there is, but makes it anew.
func TestAStaleConnectionIsMadeAnew(t *testing.T) {
	masked(t, PersonasConfig{}, func(t *testing.T, m *masquerade, p *Personas) {
		m.set(func() { m.stale = true })
		begin := time.Now()
		name := place(t, p, &domain.Need{TaskID: "1"})
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("it took %v", took)
		}
		m.set(func() {
			if !slices.Equal(m.cut, []string{name}) {
				t.Errorf("%v were made anew", m.cut)
			}
		})
	})
}

// A provider that has a task is asked for a sign of life; one that gives none is dialled anew, until it answers.
func TestConnectionsOfOpenTasksAreKeptAlive(t *testing.T) {
	masked(t, PersonasConfig{Beat: 10 * time.Second}, func(t *testing.T, m *masquerade, p *Personas) {
		name := place(t, p, &domain.Need{TaskID: "1"})
		m.set(func() {
			m.used = []*taskv1.PersonaUse{{Persona: name, PeerId: m.key.ID, Addresses: []string{"/memory/1"}}, {Persona: "t-sends"}}
		})
		time.Sleep(65 * time.Second) //nolint:forbidigo // virtual time
		if beats := m.beaten(); beats < 4 || beats > 9 || len(m.cut) > 0 {
			t.Errorf("%d signs of life were asked for in a minute, %v cut", beats, m.cut)
		}
		m.set(func() { m.down = true })
		time.Sleep(25 * time.Second) //nolint:forbidigo // virtual time
		m.set(func() { m.down = false })
		m.beaten()
		cut := len(m.cut)
		if cut == 0 || m.cut[0] != name {
			t.Errorf("%v are made anew", m.cut)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		m.beaten()
		if len(m.cut) > cut+1 {
			t.Errorf("%d are made anew after it came back", len(m.cut)-cut)
		}
	})
}

// What two personas did at the same moment would be seen to be done by one consumer.
func TestPersonasDoNothingAtTheSameMoment(t *testing.T) {
	masked(t, PersonasConfig{}, func(t *testing.T, m *masquerade, p *Personas) {
		var used []*taskv1.PersonaUse
		for i := range 20 {
			used = append(used, &taskv1.PersonaUse{Persona: place(t, p, &domain.Need{TaskID: fmt.Sprint(i)}), PeerId: m.key.ID})
		}
		m.set(func() { m.used = used })
		time.Sleep(time.Minute) //nolint:forbidigo // virtual time
		if beats := m.beaten(); beats < 60 {
			t.Errorf("%d signs of life were asked for", beats)
		}
		m.set(func() { m.used = nil })
		time.Sleep(2 * time.Minute) //nolint:forbidigo // virtual time
		if _, _, closed := m.look(); len(closed) != 20 {
			t.Errorf("%d are closed", len(closed))
		}
		slices.SortFunc(m.moments, time.Time.Compare)
		for i, at := range m.moments[1:] {
			if at.Equal(m.moments[i]) {
				t.Errorf("two at the same moment, %v", at)
			}
		}
	})
}
