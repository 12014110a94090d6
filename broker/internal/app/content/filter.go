package content

import "hash/maphash"

// filter is a Bloom filter with 16 bits and 6 probes a key: under 0.1 % of keys that were never added seem to have been. Its seeds
// differ each time, so that a block that was taken for a live one by chance goes the next time.
type filter struct {
	bits  []uint64
	seeds [2]maphash.Seed
}

const (
	bitsPerKey = 16
	probes     = 6
	minKeys    = 1 << 12
	maxKeys    = 1 << 26 // 128 MiB of filter; beyond it, it is less exact
)

func newFilter(keys int64) *filter {
	n := min(max(keys+keys/4, minKeys), maxKeys)
	return &filter{bits: make([]uint64, (n*bitsPerKey+63)/64), seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}
}

func (f *filter) each(key string, visit func(word uint64, bit uint64) bool) bool {
	a, b := maphash.String(f.seeds[0], key), maphash.String(f.seeds[1], key)|1
	n := uint64(len(f.bits)) * 64
	for i := range uint64(probes) {
		at := (a + i*b) % n
		if !visit(at/64, 1<<(at%64)) {
			return false
		}
	}
	return true
}

func (f *filter) add(key string) {
	f.each(key, func(word, bit uint64) bool { f.bits[word] |= bit; return true })
}

func (f *filter) has(key string) bool {
	return f.each(key, func(word, bit uint64) bool { return f.bits[word]&bit != 0 })
}
