package pgstore

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shallot-net/shallot/kit/fault"
)

// Connections of one process, and how long it waits for what.
const (
	Readers = 4 // beside one that writes, and one for each Listen

	connectTimeout = 5 * time.Second
	readTimeout    = 10 * time.Second
	// writeTimeout is for one group. The server gives a statement up before that, so that what is slow is told from what is silent.
	writeTimeout     = 15 * time.Second
	statementTimeout = 10 * time.Second
	lockTimeout      = 5 * time.Second
	idleInWrite      = 10 * time.Second // a process that hangs in the middle of a group does not keep the others' rows
	maxPassword      = 4 << 10
)

// Config says where a store is and whose.
type Config struct {
	// URL is postgres://USER@HOST:PORT/DATABASE, with libpq's parameters (sslmode, sslrootcert, sslcert, sslkey, host for the directory of a Unix socket). It must not
	// have a password.
	URL string
	// PasswordFile has the password in its first line. It is read, as are the files of certificates, for each connection, so they may change at any time.
	PasswordFile string
	// Schema is this service's own part of the database; it is made where missing.
	Schema     string
	Migrations fs.FS // goose SQL files, at the root or in its only directory
	Log        *slog.Logger
}

// IsURL tells whether a setting names a server of PostgreSQL.
func IsURL(store string) bool {
	return strings.HasPrefix(store, "postgres://") || strings.HasPrefix(store, "postgresql://")
}

// Check finds what is wrong with a configuration without asking the server (INVALID_ARGUMENT, CONFIG_INVALID).
func (c Config) Check() error {
	u, err := url.Parse(c.URL)
	if err != nil || !IsURL(c.URL) { // the error would show the URL
		return fault.InvalidArgument("CONFIG_INVALID", "store is not a URL such as postgres://shallot@db:5432/shallot?sslmode=verify-full&sslrootcert=/tls/ca.crt")
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return fault.InvalidArgument("CONFIG_INVALID", "store has a password in it, which others can see: put it into a file of its own and name that in store_password_file")
	}
	if c.PasswordFile != "" {
		if _, err := c.password(); err != nil {
			return err
		}
	}
	_, err = c.parse()
	return err
}

// parse reads the URL and its files. What it says of the connection holds for every statement.
func (c Config) parse() (*pgx.ConnConfig, error) {
	p, err := pgx.ParseConfig(c.URL)
	if err != nil {
		return nil, fault.InvalidArgument("CONFIG_INVALID", "store cannot be used: %v", parseCause(err)).Because(err)
	}
	if err := guarded(p); err != nil {
		return nil, err
	}
	if c.PasswordFile != "" {
		if p.Password, err = c.password(); err != nil {
			return nil, err
		}
	}
	p.ConnectTimeout = connectTimeout
	for name, value := range map[string]string{"search_path": c.Schema, "application_name": "shallot-" + c.Schema, "timezone": "UTC", "statement_timeout": millis(statementTimeout),
		"lock_timeout": millis(lockTimeout), "idle_in_transaction_session_timeout": millis(idleInWrite)} {
		p.RuntimeParams[name] = value
	}
	return p, nil
}

// parseCause leaves out the URL, which is in pgx's own words.
func parseCause(err error) string {
	var p *pgconn.ParseConfigError
	if !errors.As(err, &p) {
		return err.Error()
	}
	if cause := p.Unwrap(); cause != nil {
		return cause.Error()
	}
	return "it cannot be read"
}

// guarded refuses connections that others on the way could read or answer.
func guarded(p *pgx.ConnConfig) error {
	check := func(host string, verified bool) error {
		if verified || strings.HasPrefix(host, "/") || host == "localhost" {
			return nil
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
			return nil
		}
		return fault.InvalidArgument("CONFIG_INVALID", "store names the host %s without TLS that proves it: add sslmode=verify-full&sslrootcert=FILE, or use a Unix socket (host=/DIRECTORY)", host).With("host", host)
	}
	if err := check(p.Host, verifies(p.TLSConfig)); err != nil {
		return err
	}
	for _, f := range p.Fallbacks {
		if err := check(f.Host, verifies(f.TLSConfig)); err != nil {
			return err
		}
	}
	return nil
}

func verifies(c *tls.Config) bool {
	return c != nil && (!c.InsecureSkipVerify || c.VerifyPeerCertificate != nil)
}

func (c Config) password() (string, error) {
	f, err := os.Open(c.PasswordFile)
	if err == nil {
		defer f.Close()
		var b []byte
		if b, err = io.ReadAll(io.LimitReader(f, maxPassword)); err == nil {
			line, _, _ := strings.Cut(string(b), "\n")
			return strings.TrimSuffix(line, "\r"), nil
		}
	}
	return "", fault.FailedPrecondition("CONFIG_UNREADABLE", "cannot read store_password_file %s: check the path and its permissions", c.PasswordFile).Because(err)
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// connect opens one connection. Its files are read anew.
func (db *DB) connect(ctx context.Context) (*pgx.Conn, error) {
	p, err := db.cfg.parse()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	return pgx.ConnectConfig(ctx, p)
}
