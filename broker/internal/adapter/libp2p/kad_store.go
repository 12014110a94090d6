package libp2p

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p-kad-dht/records"
)

// kadStore shows the bounded records as the datastore that the library wants: a record's name is PREFIX KEY/PEER, both in base32, and its value the
// time. What it does not keep is no error, because the library would try again with everything that it has buffered.
type kadStore struct{ kad *kad }

var kadText = base32.StdEncoding.WithPadding(base32.NoPadding)

// kadName reads a record's name; peer is empty where the name is a key's.
func kadName(name string) (key, peer string, ok bool) {
	rest, ok := strings.CutPrefix(name, records.ProvidersKeyPrefix)
	if !ok {
		return "", "", false
	}
	k, p, _ := strings.Cut(rest, "/")
	kb, kerr := kadText.DecodeString(k)
	pb, perr := kadText.DecodeString(p)
	return string(kb), string(pb), kerr == nil && perr == nil && len(kb) > 0
}

func kadTime(at time.Time) []byte { return binary.AppendVarint(nil, at.UnixNano()) }

// Put keeps a record if there is room for it.
func (s kadStore) Put(_ context.Context, name ds.Key, value []byte) error {
	key, peer, ok := kadName(name.String())
	nanos, n := binary.Varint(value)
	if !ok || peer == "" || n <= 0 {
		return errNotStored
	}
	s.kad.mu.Lock()
	defer s.kad.mu.Unlock()
	s.kad.records.Add(key, peer, time.Unix(0, nanos), time.Now())
	return nil
}

// Delete forgets a record.
func (s kadStore) Delete(_ context.Context, name ds.Key) error {
	if key, peer, ok := kadName(name.String()); ok {
		s.kad.mu.Lock()
		defer s.kad.mu.Unlock()
		s.kad.records.Remove(key, peer)
	}
	return nil
}

// Query returns the records of one key. The library asks for all only to remove what has ended, and that happens elsewhere.
func (s kadStore) Query(_ context.Context, q query.Query) (query.Results, error) {
	var out []query.Entry
	if key, _, ok := kadName(q.Prefix); ok {
		s.kad.mu.Lock()
		of := s.kad.records.Of(key, time.Now())
		s.kad.mu.Unlock()
		for _, r := range of {
			out = append(out, query.Entry{Key: records.ProvidersKeyPrefix + kadText.EncodeToString([]byte(key)) + "/" + kadText.EncodeToString([]byte(r.Peer)), Value: kadTime(r.At)})
		}
	}
	return query.ResultsWithEntries(q, out), nil
}

// Get finds nothing: records are asked for by Query.
func (kadStore) Get(context.Context, ds.Key) ([]byte, error)  { return nil, ds.ErrNotFound }
func (kadStore) Has(context.Context, ds.Key) (bool, error)    { return false, nil }
func (kadStore) GetSize(context.Context, ds.Key) (int, error) { return -1, ds.ErrNotFound }
func (kadStore) Sync(context.Context, ds.Key) error           { return nil }
func (kadStore) Close() error                                 { return nil }

// Batch applies every change at once.
func (s kadStore) Batch(context.Context) (ds.Batch, error) { return kadBatch{s}, nil }

type kadBatch struct{ kadStore }

func (kadBatch) Commit(context.Context) error { return nil }
