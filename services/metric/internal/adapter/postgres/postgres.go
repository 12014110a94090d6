// Package postgres is what metric's replicas share, in PostgreSQL.
package postgres

import (
	"context"
	"embed"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/pgstore"
	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

//go:embed migrations
var migrations embed.FS

const (
	schema  = "metric" // this service's part of the database
	channel = "shallot_metric"
)

// Store is an app.Versions, and what replicas share.
type Store struct {
	*pgstore.Crew
	db  *pgstore.DB
	log *slog.Logger

	swept atomic.Int64 // when what is too old was last deleted, in microseconds since 1970
}

var (
	_ app.Versions = (*Store)(nil)
	_ app.Shared   = (*Store)(nil)
)

// Open opens the store that a URL names, with the password in a file; see pgstore.Open for what it waits for and for its errors.
func Open(ctx context.Context, url, passwordFile string, log *slog.Logger) (*Store, error) {
	db, err := pgstore.Open(ctx, pgstore.Config{URL: url, PasswordFile: passwordFile, Schema: schema, Migrations: migrations, Log: log})
	if err != nil {
		return nil, err
	}
	return &Store{Crew: db.Crew(channel), db: db, log: log}, nil
}

// Close writes what is queued.
func (s *Store) Close() error { return s.db.Close() }

// Reserve takes versions durably.
func (s *Store) Reserve(ctx context.Context, n, atLeast uint64) (uint64, error) {
	atLeast = max(atLeast, 1)
	if n > math.MaxInt32 || atLeast > math.MaxInt64-n {
		return 0, fault.ResourceExhausted("VERSIONS_USED_UP", "%d more versions from %d are more than there are", n, atLeast)
	}
	var next int64
	err := s.db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `INSERT INTO versions (id, next) VALUES (1, $1::bigint + $2::bigint)
			ON CONFLICT (id) DO UPDATE SET next = GREATEST(versions.next, $1) + $2 RETURNING next`, int64(atLeast), int64(n)).Scan(&next)
	})
	if err != nil {
		return 0, err
	}
	return uint64(next) - n, nil
}

// now is the server's clock, the only one that all replicas have.
const now = `(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint`

// Exchange implements app.Shared.
func (s *Store) Exchange(ctx context.Context, host string, m domain.Metric, keep time.Duration, version uint64) (out app.Common, err error) {
	b, err := proto.Marshal(broker.Encode(m))
	if err != nil {
		return out, err
	}
	err = s.db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO hosts (host, writer, until, metric) VALUES ($1, $2, `+now+` + $3, $4)
			ON CONFLICT (host) DO UPDATE SET writer = $2, until = `+now+` + $3, metric = $4 WHERE hosts.writer = $2 OR hosts.until < `+now, host, s.Name(), keep.Microseconds(), b)
		if err != nil {
			return err
		}
		if err := s.sweep(ctx, tx); err != nil {
			return err
		}
		if version > 0 {
			if _, err := tx.Exec(ctx, `INSERT INTO own (id, queue, version) VALUES (1, '', $1) ON CONFLICT (id) DO UPDATE SET version = GREATEST(own.version, $1)`, int64(version)); err != nil {
				return err
			}
		}
		out, err = s.common(ctx, tx)
		return err
	})
	return out, err
}

const (
	sweepEvery = time.Hour
	keepHosts  = time.Hour // after the last measurement; a machine is another host each time that it boots
)

// sweep deletes, once an hour, what nobody else would: hosts that nobody measures any more, and peers' metrics that no replica that has led since has had in its table.
func (s *Store) sweep(ctx context.Context, tx pgx.Tx) error {
	last, at := s.swept.Load(), time.Now()
	if at.Sub(time.UnixMicro(last)) < sweepEvery || !s.swept.CompareAndSwap(last, at.UnixMicro()) {
		return nil
	}
	if _, err := tx.Exec(ctx, `DELETE FROM hosts WHERE until < `+now+` - $1`, keepHosts.Microseconds()); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM known WHERE received < `+now+` - $1`, domain.Longest.Microseconds())
	return err
}

func (s *Store) common(ctx context.Context, tx pgx.Tx) (out app.Common, err error) {
	rows, err := tx.Query(ctx, `SELECT metric FROM hosts WHERE until >= `+now+` ORDER BY host LIMIT 256`)
	if err != nil {
		return out, err
	}
	hosts, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return out, err
	}
	for _, b := range hosts {
		if m, ok := s.decode(b); ok {
			out.Hosts = append(out.Hosts, m)
		}
	}
	var queue []byte
	var version int64
	err = tx.QueryRow(ctx, `SELECT queue, version FROM own`).Scan(&queue, &version)
	if pgstore.NoRows(err) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	out.Version = uint64(version)
	var q eventv1.Queue
	if proto.Unmarshal(queue, &q) == nil {
		out.Queue = broker.DecodeQueue(&q)
	}
	return out, nil
}

// decode leaves out what another version wrote and this one cannot read: it is measured again.
func (s *Store) decode(b []byte) (domain.Metric, bool) {
	var msg eventv1.Metric
	err := proto.Unmarshal(b, &msg)
	if err == nil {
		var m domain.Metric
		if m, err = broker.Decode(&msg); err == nil {
			return m, true
		}
	}
	s.log.Warn("a stored metric was left out", logging.Err(err))
	return domain.Metric{}, false
}

// What replicas tell each other.
const noteQueue = "queue"

// SaveQueue implements app.Shared.
func (s *Store) SaveQueue(ctx context.Context, q domain.Queue) error {
	queue, err := proto.Marshal(broker.Encode(domain.Metric{Queue: q}).GetQueue())
	if err != nil {
		return err
	}
	if queue == nil {
		queue = []byte{}
	}
	var b pgstore.Batch
	// Several processes of the node say the same: only what is new is told.
	b.Exec(`WITH news AS (INSERT INTO own (id, queue, version) VALUES (1, $1, 0) ON CONFLICT (id) DO UPDATE SET queue = $1 WHERE own.queue <> $1 RETURNING 1)
		SELECT pg_notify($2, $3) FROM news`, queue, channel, s.Name()+" "+noteQueue)
	return s.db.Commit(ctx, &b)
}

// LoadKnown implements app.Shared.
func (s *Store) LoadKnown(ctx context.Context) (out []domain.Known, err error) {
	err = s.db.Each(ctx, `SELECT received, metric FROM known ORDER BY received DESC`, nil, func() { out = nil }, func(r pgx.Rows) error {
		var received int64
		var b []byte
		if err := r.Scan(&received, &b); err != nil {
			return err
		}
		if m, ok := s.decode(b); ok && m.Check() == nil {
			out = append(out, domain.Known{Metric: m.Clamped(), ReceivedAt: time.UnixMicro(received)})
		}
		return nil
	})
	return out, err
}

// SaveKnown implements app.Shared.
func (s *Store) SaveKnown(put []domain.Known, del []string) {
	var b pgstore.Batch
	for _, k := range put {
		if metric, err := proto.Marshal(broker.Encode(k.Metric)); err == nil {
			b.Exec(`INSERT INTO known (peer_id, received, metric) VALUES ($1, $2, $3) ON CONFLICT (peer_id) DO UPDATE SET received = $2, metric = $3`, k.PeerID, k.ReceivedAt.UnixMicro(), metric)
		}
	}
	for _, id := range del {
		b.Exec(`DELETE FROM known WHERE peer_id = $1`, id)
	}
	if b.Len() > 0 {
		s.db.Later(&b)
	}
}

// Listen implements app.Shared.
func (s *Store) Listen(ctx context.Context, heard func(left bool)) error {
	return s.Crew.Listen(ctx, func(text string) { heard(text == pgstore.Left) })
}
