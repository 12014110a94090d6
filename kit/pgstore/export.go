package pgstore

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shallot-net/shallot/kit/fault"
)

// maxStructure bounds what is read of a schema's structure, in bytes.
const maxStructure = 16 << 20

// Exported is what Export found.
type Exported struct {
	ServerVersion string
	Schemas       []string // those of services of a node: of whoever has migrations in them
}

// Files of one schema, in a directory of its name.
const structureFile = "structure.json"

func tableFile(table string) string { return table + ".copy" }

// session is one connection that reads or writes everything: without the limits of short statements.
func (c Config) session(ctx context.Context) (*DB, *pgx.Conn, error) {
	c.Schema = "backup"
	if err := c.Check(); err != nil {
		return nil, nil, err
	}
	p, err := c.parse()
	if err != nil {
		return nil, nil, err
	}
	for name, value := range map[string]string{"search_path": "pg_catalog", "statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"} {
		p.RuntimeParams[name] = value
	}
	db := &DB{cfg: c, where: where(p)}
	short, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(short, p)
	return db, conn, db.fault(err, "connect to")
}

// Export writes all that services of a node have in a database, as of one moment, while they read and write it. put is called for one file after the other, with names such as
// task/structure.json and task/tasks.copy; what fill returns it returns. Rows are in the text format of COPY, which every version of PostgreSQL reads. Errors are those of Open, and STORE_MISSING
// where no service has a schema.
func Export(ctx context.Context, cfg Config, put func(name string, fill func(io.Writer) error) error) (Exported, error) {
	var e Exported
	db, conn, err := cfg.session(ctx)
	if err != nil {
		return e, err
	}
	defer closeConn(conn)
	if err := db.export(ctx, conn, &e, put); err != nil {
		if ctx.Err() != nil {
			return e, fault.From(context.Cause(ctx))
		}
		return e, db.fault(err, "read")
	}
	return e, nil
}

func (db *DB) export(ctx context.Context, conn *pgx.Conn, e *Exported, put func(string, func(io.Writer) error) error) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // it has written nothing
	if err := conn.QueryRow(ctx, `SHOW server_version`).Scan(&e.ServerVersion); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, `SELECT n.nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid WHERE c.relname = 'goose_db_version' AND c.relkind = 'r' ORDER BY 1`)
	if err != nil {
		return err
	}
	if e.Schemas, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return err
	}
	if len(e.Schemas) == 0 {
		return fault.FailedPrecondition(ReasonMissing, "the database at %s has nothing of a node: name in store the one that its services have", db.where)
	}
	for _, schema := range e.Schemas {
		if !fileName(schema) {
			return fault.FailedPrecondition("STORE_UNKNOWN", "the schema %q of PostgreSQL at %s has a name that no service's has", schema, db.where)
		}
		s, err := structure(ctx, conn, schema)
		if err != nil {
			return err
		}
		if err := put(schema+"/"+structureFile, func(w io.Writer) error { return json.NewEncoder(w).Encode(s) }); err != nil {
			return err
		}
		for _, t := range s.Tables {
			if !fileName(t.Name) {
				return fault.FailedPrecondition("STORE_UNKNOWN", "the table %q of the schema %q has a name that no service's has", t.Name, schema)
			}
			query := fmt.Sprintf(`COPY %s (%s) TO STDOUT`, pgx.Identifier{schema, t.Name}.Sanitize(), t.columns())
			if err := put(schema+"/"+tableFile(t.Name), func(w io.Writer) error {
				_, err := conn.PgConn().CopyTo(ctx, w, query)
				return err
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// fileName tells whether a name can be a file's as it is.
func fileName(s string) bool {
	return s != "" && len(s) < 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// Import brings what Export wrote into a database that has none of these schemas, in one transaction: all of it or nothing. id is of the import: repeated with again after one whose end nobody heard of, it does nothing where that one
// has done all. A database that processes of a node use, or that has one of the schemas, is refused (STORE_IN_USE).
func Import(ctx context.Context, cfg Config, id string, again bool, schemas []string, open func(name string) (io.ReadCloser, error)) error {
	db, conn, err := cfg.session(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	done, err := db.vacant(ctx, conn, id, schemas)
	if err == nil && done && !again {
		err = db.inUse("has been restored from this backup before")
	}
	if err == nil && !done {
		err = db.imports(ctx, conn, id, schemas, open)
	}
	if err != nil && ctx.Err() != nil {
		return fault.From(context.Cause(ctx))
	}
	return db.fault(err, "write to")
}

func (db *DB) inUse(what string) error {
	return fault.FailedPrecondition("STORE_IN_USE", "the database at %s %s: name an empty one in store (createdb NAME), or drop that one when nobody needs it", db.where, what).With("store", db.where)
}

func restoredFrom(id string) string { return "restored from the backup " + id }

// vacant tells whether this import has been done before, and refuses a database in which it must not be done.
func (db *DB) vacant(ctx context.Context, conn *pgx.Conn, id string, schemas []string) (done bool, err error) {
	var others int
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'shallot-%'`).Scan(&others); err != nil {
		return false, err
	}
	if others > 0 {
		return false, db.inUse(fmt.Sprintf("is used by a node that runs (%d connections): stop it first, and never start it again", others))
	}
	for _, schema := range schemas {
		var comment *string
		err := conn.QueryRow(ctx, `SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1`, schema).Scan(&comment)
		switch {
		case NoRows(err):
			continue
		case err != nil:
			return false, err
		case comment == nil || *comment != restoredFrom(id):
			return false, db.inUse(fmt.Sprintf("has the schema %q already", schema))
		}
		done = true
	}
	return done, nil
}

func (db *DB) imports(ctx context.Context, conn *pgx.Conn, id string, schemas []string, open func(string) (io.ReadCloser, error)) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // after a commit it does nothing
	for _, schema := range schemas {
		if err := importSchema(ctx, conn, schema, id, open); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

func importSchema(ctx context.Context, conn *pgx.Conn, schema, id string, open func(string) (io.ReadCloser, error)) error {
	s, err := readStructure(schema, open)
	if err != nil {
		return err
	}
	run := func(statements ...string) error {
		for _, q := range statements {
			if _, err := conn.Exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}
	name := pgx.Identifier{schema}.Sanitize()
	if err := run("CREATE SCHEMA "+name, fmt.Sprintf("COMMENT ON SCHEMA %s IS '%s'", name, strings.ReplaceAll(restoredFrom(id), "'", ""))); err != nil {
		return err
	}
	for _, t := range s.Tables {
		if err := run(t.create(schema)); err != nil {
			return err
		}
		if err := importRows(ctx, conn, schema, t, open); err != nil {
			return err
		}
	}
	// When all rows are there, and foreign keys at last: they need rows and keys of other tables.
	for _, t := range s.Tables {
		if err := run(t.constrain(schema, false)...); err != nil {
			return err
		}
		if err := run(t.Indexes...); err != nil {
			return err
		}
		if err := t.number(ctx, conn, schema); err != nil {
			return err
		}
	}
	for _, t := range s.Tables {
		if err := run(t.constrain(schema, true)...); err != nil {
			return err
		}
	}
	return nil
}

func readStructure(schema string, open func(string) (io.ReadCloser, error)) (s Structure, err error) {
	f, err := open(schema + "/" + structureFile)
	if err != nil {
		return s, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxStructure))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil || s.Schema != schema {
		return s, fault.FailedPrecondition("BACKUP_DAMAGED", "the structure of the schema %q in the backup cannot be read", schema).Because(err)
	}
	return s, nil
}

func importRows(ctx context.Context, conn *pgx.Conn, schema string, t Table, open func(string) (io.ReadCloser, error)) error {
	f, err := open(schema + "/" + tableFile(t.Name))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = conn.PgConn().CopyFrom(ctx, f, fmt.Sprintf(`COPY %s (%s) FROM STDIN`, pgx.Identifier{schema, t.Name}.Sanitize(), t.columns()))
	return err
}
