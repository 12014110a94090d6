package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	lerrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// Keys of the index: a block's place by its multihash; a pin's end by content and owner, and again by owner and content.
const (
	prefixBlock   = "b"
	prefixPin     = "p"
	prefixOwner   = "o"
	keyGeneration = "mgeneration"
)

func pinKey(p content.Pin) []byte   { return []byte(prefixPin + p.CID + "\x00" + p.Owner) }
func ownerKey(p content.Pin) []byte { return []byte(prefixOwner + p.Owner + "\x00" + p.CID) }

// endSize is what a pin without readers has: its end in milliseconds, 0 for none. With readers their persona and their ids follow, each with its length
// in one byte before it.
const endSize = 8

func pinValue(p content.Pin) []byte {
	var ms int64
	if !p.ExpiresAt.IsZero() {
		ms = p.ExpiresAt.UnixMilli()
	}
	v := binary.BigEndian.AppendUint64(nil, uint64(ms))
	if len(p.Readers) == 0 {
		return v
	}
	for _, text := range append([]string{p.Persona}, p.Readers...) {
		v = append(append(v, byte(len(text))), text...) // content.Pin.GrantedTo bounds them below 256
	}
	return v
}

// decodeReaders reads what follows a pin's end.
func decodeReaders(v []byte) (persona string, readers []string, err error) {
	var texts []string
	for len(v) > 0 {
		n := int(v[0])
		if len(v) < 1+n || len(texts) > content.MaxReaders {
			return "", nil, errors.New("the readers of a pin in the index cannot be read")
		}
		texts, v = append(texts, string(v[1:1+n])), v[1+n:]
	}
	if len(texts) < 2 {
		return "", nil, errors.New("a pin in the index has a persona, and no readers")
	}
	return texts[0], texts[1:], nil
}

func decodePin(key, value []byte) (content.Pin, error) {
	if len(key) == 0 || len(value) < endSize {
		return content.Pin{}, errors.New("a pin in the index cannot be read")
	}
	a, b, ok := strings.Cut(string(key[1:]), "\x00")
	if !ok {
		return content.Pin{}, errors.New("a pin in the index has no owner")
	}
	p := content.Pin{CID: a, Owner: b}
	if string(key[:1]) == prefixOwner {
		p.CID, p.Owner = b, a
	}
	if ms := int64(binary.BigEndian.Uint64(value)); ms != 0 {
		p.ExpiresAt = time.UnixMilli(ms)
	}
	if len(value) == endSize {
		return p, nil
	}
	var err error
	p.Persona, p.Readers, err = decodeReaders(value[endSize:])
	return p, err
}

// indexOptions keep the index small in memory: its entries are about a hundred bytes, and blocks are not in it.
func indexOptions(create bool) *opt.Options {
	return &opt.Options{
		ErrorIfMissing:         !create,
		WriteBuffer:            2 << 20,
		BlockCacheCapacity:     1 << 20,
		OpenFilesCacheCapacity: 32,
		Filter:                 filter.NewBloomFilter(10), // most look-ups of new blocks find nothing
		Compression:            opt.NoCompression,         // hashes do not compress
		DisableSeeksCompaction: true,
		DisableBufferPool:      true,
		Strict:                 opt.DefaultStrict,
	}
}

func openIndex(dir string, create bool, wrap func(storage.Storage) storage.Storage) (*leveldb.DB, storage.Storage, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	st, err := openPrivate(dir)
	if err != nil {
		return nil, nil, err
	}
	if wrap != nil {
		st = wrap(st)
	}
	db, err := leveldb.Open(st, indexOptions(create))
	if err != nil {
		_ = st.Close()
		return nil, nil, err
	}
	return db, st, nil
}

// private has LevelDB's files readable by their owner alone, as all files of a home are: it makes them for everybody and leaves it to the directory.
type private struct {
	storage.Storage
	dir string
}

func openPrivate(dir string) (storage.Storage, error) {
	st, err := storage.OpenFile(dir, false)
	if err != nil {
		return nil, err
	}
	p := &private{st, dir}
	if err := p.all(); err != nil {
		_ = st.Close()
		return nil, err
	}
	return p, nil
}

// all is for those that an earlier version has made, and the lock and the log, which are made when the storage is opened.
func (p *private) all() error {
	files, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Chmod(filepath.Join(p.dir, f.Name()), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Create is of storage.Storage.
func (p *private) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := p.Storage.Create(fd)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(filepath.Join(p.dir, fd.String()), 0o600); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// SetMeta is of storage.Storage. The files that it replaces are few.
func (p *private) SetMeta(fd storage.FileDesc) error {
	if err := p.Storage.SetMeta(fd); err != nil {
		return err
	}
	return p.all()
}

func isTorn(err error) bool {
	return lerrors.IsCorrupted(err) || errors.Is(err, os.ErrNotExist)
}

func generationValue(g uint64) []byte { return binary.BigEndian.AppendUint64(nil, g) }

func readGeneration(db *leveldb.DB) (uint64, error) {
	v, err := db.Get([]byte(keyGeneration), nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("the generation has %d bytes instead of 8", len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}
