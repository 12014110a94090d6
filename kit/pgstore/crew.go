package pgstore

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shallot-net/shallot/kit/crew"
)

// Crew is the replicas of a service that share a schema, as one of them sees it, and what they tell each other. The schema has these tables, made by the service's migrations:
//
//	replicas (name TEXT PRIMARY KEY, until BIGINT)
//	leases (name TEXT PRIMARY KEY, holder TEXT, until BIGINT)
type Crew struct {
	db      *DB
	channel string
	name    string
}

var _ crew.Members = (*Crew)(nil)

// Crew gives the view of this process, which has a name that no other one has. channel is where its service's replicas tell each other, one for each schema.
func (db *DB) Crew(channel string) *Crew {
	return &Crew{db: db, channel: channel, name: strings.ToLower(rand.Text())}
}

// Name is this process's among the replicas.
func (c *Crew) Name() string { return c.name }

// now is the server's clock, in microseconds: the only one that all replicas have.
const now = `(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint`

// Beat implements crew.Members.
func (c *Crew) Beat(ctx context.Context, lease time.Duration) (p crew.Pulse, err error) {
	err = c.db.Tx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(`DELETE FROM replicas WHERE until < `+now+` - $1`, time.Hour.Microseconds())
		b.Queue(`INSERT INTO replicas (name, until) VALUES ($1, `+now+` + $2) ON CONFLICT (name) DO UPDATE SET until = `+now+` + $2`, c.name, lease.Microseconds())
		b.Queue(`INSERT INTO leases (name, holder, until) VALUES ('lead', $1, `+now+` + $2)
			ON CONFLICT (name) DO UPDATE SET holder = $1, until = `+now+` + $2 WHERE leases.holder = $1 OR leases.until < `+now, c.name, lease.Microseconds())
		b.Queue(`SELECT COUNT(*), (SELECT holder = $1 FROM leases WHERE name = 'lead') FROM replicas WHERE until >= `+now, c.name)
		r := tx.SendBatch(ctx, &b)
		for range b.Len() - 1 {
			if _, err := r.Exec(); err != nil {
				_ = r.Close() // says the same
				return err
			}
		}
		if err := r.QueryRow().Scan(&p.Replicas, &p.Leads); err != nil {
			_ = r.Close() // says the same
			return err
		}
		return r.Close()
	})
	return p, err
}

// Leave implements crew.Members; the others hear of it.
func (c *Crew) Leave(ctx context.Context) (others int, err error) {
	var b Batch
	b.Exec(`DELETE FROM replicas WHERE name = $1`, c.name)
	b.Exec(`DELETE FROM leases WHERE holder = $1`, c.name)
	c.Tell(&b, Left)
	if err := c.db.CommitWithin(ctx, &b); err != nil {
		return 0, err
	}
	return others, c.db.Row(ctx, `SELECT COUNT(*) FROM replicas WHERE until >= `+now, nil, &others)
}

// Left is what the others hear of a replica that leaves.
const Left = "left"

// Tell has the other replicas hear of what a batch writes, once it is committed: text has some thousand bytes at most.
func (c *Crew) Tell(b *Batch, text string) {
	b.Exec(`SELECT pg_notify($1, $2)`, c.channel, c.name+" "+text)
}

// Listen calls heard with what the others tell, and with "" whenever something may have been missed, until ctx ends. heard must not block.
func (c *Crew) Listen(ctx context.Context, heard func(text string)) error {
	return c.db.Listen(ctx, c.channel, func(note string) {
		from, text, _ := strings.Cut(note, " ")
		if note == "" || from != c.name {
			heard(text)
		}
	})
}
