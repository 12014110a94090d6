// Package historyfile keeps a node's history in one file of a fixed size.
package historyfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/node/internal/domain"
)

// A record has its place by its time, so that a day's points take the places of those of the day before, and one that was torn is found by its checksum. Nothing is synced:
// what a machine forgets when it loses power is some seconds of a picture.
const (
	words  = 11 // of 8 bytes, the checksum the last of them
	record = words * 8
)

// File is the file. It is safe for concurrent use.
type File struct {
	mu sync.Mutex
	f  *os.File
}

// Open opens a file of a folder, or makes it, and reads the points of the last day, the oldest first. What cannot be read is left out.
func Open(dir string, now time.Time) (*File, []domain.Point, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the folder of the history: %w", err)
	}
	path := filepath.Join(dir, "history")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the history: %w", err)
	}
	b := make([]byte, domain.HistoryPoints*record)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		_ = f.Close()
		return nil, nil, fmt.Errorf("read the history: %w", err)
	}
	var points []domain.Point
	for i := 0; i+record <= n; i += record {
		p, ok := decode(b[i : i+record])
		if ok && slot(p.Time)*record == int64(i) && p.Time.After(now.Add(-domain.HistorySpan)) && !p.Time.After(now) {
			points = append(points, p)
		}
	}
	slices.SortFunc(points, func(a, b domain.Point) int { return a.Time.Compare(b.Time) })
	return &File{f: f}, points, nil
}

// Append writes a point.
func (f *File) Append(p domain.Point) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.f.WriteAt(encode(p), slot(p.Time)*record); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return nil
}

// Close closes it.
func (f *File) Close() error { return f.f.Close() }

func slot(t time.Time) int64 {
	return t.UnixNano() / int64(domain.HistoryStep) % int64(domain.HistoryPoints)
}

func encode(p domain.Point) []byte {
	b := make([]byte, 0, record)
	for _, v := range []uint64{uint64(p.Time.UnixNano()), uint64(p.Waiting)<<32 | uint64(p.Running), uint64(p.Finished)<<32 | uint64(p.Failed), uint64(p.P50), uint64(p.P99),
		math.Float64bits(p.CPU), p.Memory, p.Used, p.Free, 0} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint64(b, uint64(crc32.ChecksumIEEE(b)))
}

func decode(b []byte) (p domain.Point, ok bool) {
	at := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	if at(words-1) != uint64(crc32.ChecksumIEEE(b[:record-8])) || at(0) == 0 {
		return p, false
	}
	return domain.Point{Time: time.Unix(0, int64(at(0))), Waiting: uint32(at(1) >> 32), Running: uint32(at(1)), Finished: uint32(at(2) >> 32), Failed: uint32(at(2)),
		P50: time.Duration(at(3)), P99: time.Duration(at(4)), CPU: math.Float64frombits(at(5)), Memory: at(6), Used: at(7), Free: at(8)}, true
}
