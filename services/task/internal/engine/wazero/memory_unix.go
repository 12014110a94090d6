//go:build unix

package wazero

import "golang.org/x/sys/unix"

// mapping is address space of which the first bytes can be used: growing neither copies nor touches what is there, and
// what was never written costs nothing.
type mapping struct {
	all  []byte
	used uint64
}

func reserve(most uint64) (*mapping, error) {
	if most == 0 {
		return &mapping{all: []byte{}}, nil
	}
	b, err := unix.Mmap(-1, 0, int(most), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	return &mapping{all: b}, nil
}

func (m *mapping) grow(size uint64) []byte {
	if size > uint64(len(m.all)) {
		return nil
	}
	if size > m.used {
		if err := unix.Mprotect(m.all[m.used:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return nil
		}
		m.used = size
	}
	return m.all[:size]
}

func (m *mapping) free() {
	if len(m.all) > 0 {
		_ = unix.Munmap(m.all)
	}
	m.all = nil
}
