package disk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
)

// A record in a pack: magic, CRC-32C of what follows up to the data, length of data, length of key, zero, key, data. The data's own
// checksum is the key.
const (
	magic      = 0x31424853 // "SHB1"
	headerSize = 16
	smallData  = 64 << 10 // up to here a batch is copied together into one write
	nudgeEvery = 8 << 20  // bytes after which writing back starts, so that the sync at the end finds little to do
)

// buffers are where small blocks are put together for one write.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const flushAt = 1 << 20 // bytes

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// place is where a block's data lies, and the generation that touched it last.
type place struct {
	pack uint32
	off  uint32
	size uint32
	gen  uint64
}

const placeSize = 20

func (p place) encode() []byte {
	b := make([]byte, placeSize)
	binary.BigEndian.PutUint32(b, p.pack)
	binary.BigEndian.PutUint32(b[4:], p.off)
	binary.BigEndian.PutUint32(b[8:], p.size)
	binary.BigEndian.PutUint64(b[12:], p.gen)
	return b
}

func decodePlace(b []byte) (place, error) {
	if len(b) != placeSize {
		return place{}, fmt.Errorf("an index entry has %d bytes instead of %d", len(b), placeSize)
	}
	return place{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint64(b[12:])}, nil
}

func appendHeader(b []byte, key string, size int) []byte {
	at := len(b)
	b = append(b, make([]byte, headerSize)...)
	b = append(b, key...)
	binary.BigEndian.PutUint32(b[at:], magic)
	binary.BigEndian.PutUint32(b[at+8:], uint32(size))
	binary.BigEndian.PutUint16(b[at+12:], uint16(len(key)))
	binary.BigEndian.PutUint32(b[at+4:], crc32.Checksum(b[at+8:], castagnoli))
	return b
}
