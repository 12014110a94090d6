package consumer

import "maps"

// Personas are those that are still needed: an unfinished task has left from them, or a provider has still to hear something, at last that it may let a
// result go. The node's own is not among them.
func (s *Service) Personas() []string {
	in := make(map[string]struct{})
	s.mu.Lock()
	open := make([]*live, 0, len(s.live))
	for _, l := range s.live {
		open = append(open, l)
	}
	s.mu.Unlock()
	for _, l := range open {
		l.mu.Lock()
		if l.task != nil {
			for i := range l.task.Attempts {
				in[l.task.Attempts[i].Persona] = struct{}{}
			}
		}
		l.mu.Unlock()
	}
	s.outbox.Personas(in)
	s.let.personas(in)
	delete(in, "")
	out := make([]string, 0, len(in))
	for name := range maps.Keys(in) {
		out = append(out, name)
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
