package pgstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/shallot-net/shallot/kit/fault"
)

// Structure is how one schema is made, in the server's own words. It has what the migrations of services use: tables, their constraints and indexes, and identity columns.
type Structure struct {
	Schema string  `json:"schema"`
	Tables []Table `json:"tables"`
}

// Table is one of a schema.
type Table struct {
	Name        string       `json:"name"`
	Unlogged    bool         `json:"unlogged,omitempty"`
	Options     []string     `json:"options,omitempty"` // such as fillfactor=70
	Columns     []Column     `json:"columns"`
	Constraints []Constraint `json:"constraints,omitempty"`
	Indexes     []string     `json:"indexes,omitempty"` // statements
}

// Column is one of a table.
type Column struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	Collation string `json:"collation,omitempty"`
	Default   string `json:"default,omitempty"`
	NotNull   bool   `json:"not_null,omitempty"`
	// Identity is "a" (always) or "d" (by default), Last the last number of its sequence, and Given whether that has been given to a row.
	Identity string `json:"identity,omitempty"`
	Last     int64  `json:"last,omitempty"`
	Given    bool   `json:"given,omitempty"`
}

// Constraint is one of a table; an index that belongs to it is made with it.
type Constraint struct {
	Name       string `json:"name"`
	Definition string `json:"definition"`
}

// strangers are things in a schema that a Structure has no place for: to leave one out would be another database.
const strangers = `
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'type' ELSE 'sequence' END || ' ' || c.relname
  FROM pg_class c WHERE c.relnamespace = $1::regnamespace AND (c.relkind IN ('v', 'm', 'p', 'f', 'c')
    OR c.relkind = 'S' AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i'))
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = $1::regnamespace
UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = $1::regnamespace AND typtype IN ('e', 'd', 'r', 'm')
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = $1::regnamespace AND NOT tgisinternal
UNION ALL SELECT 'rule ' || rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r'
UNION ALL SELECT 'policy ' || polname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = $1::regnamespace
UNION ALL SELECT 'generated column ' || attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = $1::regnamespace AND attgenerated <> ''
UNION ALL SELECT 'inheritance of ' || c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r'
LIMIT 1`

// structure reads how a schema is made. The connection's search path is pg_catalog alone, so that all names come with their schema.
func structure(ctx context.Context, conn *pgx.Conn, schema string) (Structure, error) {
	s := Structure{Schema: schema}
	quoted := pgx.Identifier{schema}.Sanitize()
	var stranger string
	err := conn.QueryRow(ctx, strangers, quoted).Scan(&stranger)
	if err == nil {
		return s, fault.FailedPrecondition("STORE_UNKNOWN", "the schema %q has the %s, which no version of this program makes: remove it, or back the database up with pg_dump", schema, stranger)
	}
	if !NoRows(err) {
		return s, err
	}
	rows, err := conn.Query(ctx, `SELECT relname, relpersistence = 'u', coalesce(reloptions, '{}') FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r' ORDER BY relname`, quoted)
	if err != nil {
		return s, err
	}
	s.Tables, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (t Table, err error) {
		return t, r.Scan(&t.Name, &t.Unlogged, &t.Options)
	})
	if err != nil {
		return s, err
	}
	for i := range s.Tables {
		if err := s.Tables[i].read(ctx, conn, schema); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (t *Table) read(ctx context.Context, conn *pgx.Conn, schema string) error {
	name := pgx.Identifier{schema, t.Name}.Sanitize()
	rows, err := conn.Query(ctx, `
SELECT a.attname, format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attcollation <> ty.typcollation THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) ELSE '' END,
       coalesce(pg_get_expr(d.adbin, d.adrelid), ''), a.attnotnull, a.attidentity
  FROM pg_attribute a JOIN pg_type ty ON ty.oid = a.atttypid LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, name)
	if err != nil {
		return err
	}
	t.Columns, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (c Column, err error) {
		var identity rune
		err = r.Scan(&c.Name, &c.Type, &c.Collation, &c.Default, &c.NotNull, &identity)
		if identity != 0 {
			c.Identity = string(identity)
		}
		return c, err
	})
	if err != nil {
		return err
	}
	for i := range t.Columns {
		if c := &t.Columns[i]; c.Identity != "" {
			var sequence string
			if err := conn.QueryRow(ctx, `SELECT pg_get_serial_sequence($1, $2)`, name, c.Name).Scan(&sequence); err != nil {
				return err
			}
			if err := conn.QueryRow(ctx, `SELECT last_value, is_called FROM `+sequence).Scan(&c.Last, &c.Given); err != nil {
				return err
			}
		}
	}
	rows, err = conn.Query(ctx, `SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::regclass AND contype <> 'n' ORDER BY conname`, name)
	if err != nil {
		return err
	}
	t.Constraints, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (c Constraint, err error) { return c, r.Scan(&c.Name, &c.Definition) })
	if err != nil {
		return err
	}
	rows, err = conn.Query(ctx, `SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1::regclass
   AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) ORDER BY c.relname`, name)
	if err != nil {
		return err
	}
	t.Indexes, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return err
}

// create is the statement that makes the table, without constraints and indexes: these are made when the rows are there.
func (t *Table) create(schema string) string {
	var b strings.Builder
	b.WriteString("CREATE ")
	if t.Unlogged {
		b.WriteString("UNLOGGED ")
	}
	fmt.Fprintf(&b, "TABLE %s (", pgx.Identifier{schema, t.Name}.Sanitize())
	for i, c := range t.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(pgx.Identifier{c.Name}.Sanitize() + " " + c.Type)
		if c.Collation != "" {
			b.WriteString(" COLLATE " + c.Collation)
		}
		if c.Default != "" {
			b.WriteString(" DEFAULT " + c.Default)
		}
		if c.NotNull {
			b.WriteString(" NOT NULL")
		}
		switch c.Identity {
		case "a":
			b.WriteString(" GENERATED ALWAYS AS IDENTITY")
		case "d":
			b.WriteString(" GENERATED BY DEFAULT AS IDENTITY")
		}
	}
	b.WriteString(")")
	if len(t.Options) > 0 {
		b.WriteString(" WITH (" + strings.Join(t.Options, ", ") + ")")
	}
	return b.String()
}

func (t *Table) columns() string {
	names := make([]string, 0, len(t.Columns))
	for _, c := range t.Columns {
		names = append(names, pgx.Identifier{c.Name}.Sanitize())
	}
	return strings.Join(names, ", ")
}

// constrain are the statements that make its constraints: foreign keys, or all others.
func (t *Table) constrain(schema string, foreign bool) (statements []string) {
	for _, c := range t.Constraints {
		if strings.HasPrefix(c.Definition, "FOREIGN KEY") == foreign {
			statements = append(statements, fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s", pgx.Identifier{schema, t.Name}.Sanitize(), pgx.Identifier{c.Name}.Sanitize(), c.Definition))
		}
	}
	return statements
}

// number has identity columns go on where they were.
func (t *Table) number(ctx context.Context, conn *pgx.Conn, schema string) error {
	for _, c := range t.Columns {
		if c.Identity == "" {
			continue
		}
		if _, err := conn.Exec(ctx, `SELECT setval(pg_get_serial_sequence($1, $2)::regclass, $3, $4)`, pgx.Identifier{schema, t.Name}.Sanitize(), c.Name, c.Last, c.Given); err != nil {
			return err
		}
	}
	return nil
}
