//go:build !unix

package wazero

// mapping is memory of the heap where address space cannot be reserved.
type mapping struct {
	all  []byte
	most uint64
}

func reserve(most uint64) (*mapping, error) { return &mapping{most: most}, nil }

func (m *mapping) grow(size uint64) []byte {
	if size > m.most {
		return nil
	}
	if size > uint64(cap(m.all)) {
		b := make([]byte, size, min(m.most, max(size, uint64(cap(m.all))*5/4)))
		copy(b, m.all)
		m.all = b
	}
	m.all = m.all[:size]
	return m.all
}

func (m *mapping) free() { m.all = nil }
