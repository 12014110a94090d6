package consumer

import "github.com/shallot-net/shallot/services/task/internal/app"

// Personas are those that are still needed: an unfinished task has left from them, or a provider has still to hear something, at last that it may let a
// result go. The node's own is not among them.
func (s *Service) Personas() []app.PersonaUse {
	s.mu.Lock()
	open := make([]*live, 0, len(s.live))
	for _, l := range s.live {
		open = append(open, l)
	}
	s.mu.Unlock()
	with := make(map[releaseTo]app.PersonaUse)
	in := make(map[string]struct{})
	jobs := make(map[string]string)
	for _, l := range open {
		l.mu.Lock()
		if t := l.task; t != nil {
			for i := range t.Attempts {
				a := &t.Attempts[i]
				in[a.Persona] = struct{}{}
				jobs[a.Persona] = t.JobOf()
				if a.Ended == "" && a.Persona != "" {
					with[releaseTo{a.Persona, a.Peer}] = app.PersonaUse{Persona: a.Persona, Peer: a.Peer, Addresses: a.Addresses, Job: t.JobOf()}
				}
			}
		}
		l.mu.Unlock()
	}
	s.outbox.Personas(in)
	s.let.personas(in)
	delete(in, "")
	out := make([]app.PersonaUse, 0, len(in)+len(with))
	for _, u := range with {
		out = append(out, u)
		delete(in, u.Persona)
	}
	for name := range in {
		out = append(out, app.PersonaUse{Persona: name, Job: jobs[name]})
	}
	return out
}

// personas adds those by which results have still to be let go.
func (r *releaser) personas(to map[string]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.byTo {
		to[key.persona] = struct{}{}
	}
}
