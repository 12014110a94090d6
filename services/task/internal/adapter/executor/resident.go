package executor

import "container/list"

// residents is what a child holds compiled in memory. The child obeys: it drops what it is told to and nothing else,
// so that this is not a guess.
type residents struct {
	maxCount int
	maxBytes int64
	bytes    int64
	order    *list.List // of resident, the one used last in front
	byKey    map[moduleKey]*list.Element
}

type resident struct {
	key  moduleKey
	size int64
}

func newResidents(maxCount int, maxBytes int64) *residents {
	return &residents{maxCount: maxCount, maxBytes: maxBytes, order: list.New(), byKey: make(map[moduleKey]*list.Element)}
}

func (r *residents) has(key moduleKey) bool { return r.byKey[key] != nil }

// use marks a module as the one used last and returns those for which there is no room any more.
func (r *residents) use(key moduleKey, size int64) (drop []moduleKey) {
	if e := r.byKey[key]; e != nil {
		r.order.MoveToFront(e)
		return nil
	}
	for r.order.Len() > 0 && (r.order.Len() >= r.maxCount || r.bytes+size > r.maxBytes) {
		e := r.order.Back()
		old := e.Value.(resident) //nolint:forcetypeassert // nothing else is put in
		r.order.Remove(e)
		delete(r.byKey, old.key)
		r.bytes -= old.size
		drop = append(drop, old.key)
	}
	r.byKey[key] = r.order.PushFront(resident{key, size})
	r.bytes += size
	return drop
}
