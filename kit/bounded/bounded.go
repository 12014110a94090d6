// Package bounded remembers something of each of many strangers: a rate, a credit, until when one is kept out. Identities are free, so what is
// remembered must not grow with them.
package bounded

// Map has a bounded number of entries. Where it is full, a new one takes the place of any other: were it the oldest or the least used, whoever has many
// identities could choose who is forgotten. It is not safe for concurrent use.
type Map[K comparable, V any] struct {
	most int
	of   map[K]V
}

// New makes an empty map of at most so many entries, 1 or more.
func New[K comparable, V any](most int) *Map[K, V] {
	return &Map[K, V]{most: max(most, 1), of: make(map[K]V)}
}

// Len is the number of entries.
func (m *Map[K, V]) Len() int { return len(m.of) }

// Get returns what is remembered of k.
func (m *Map[K, V]) Get(k K) (v V, ok bool) {
	v, ok = m.of[k]
	return v, ok
}

// GetOrMake returns what is remembered of k, and remembers what create returns where that is nothing.
func (m *Map[K, V]) GetOrMake(k K, create func() V) V {
	if v, ok := m.of[k]; ok {
		return v
	}
	v := create()
	m.Put(k, v)
	return v
}

// Put remembers v of k.
func (m *Map[K, V]) Put(k K, v V) {
	if _, known := m.of[k]; !known && len(m.of) >= m.most {
		for other := range m.of { // Go's order of a map is chance enough
			delete(m.of, other)
			break
		}
	}
	m.of[k] = v
}

// Delete forgets k.
func (m *Map[K, V]) Delete(k K) { delete(m.of, k) }
