package pgstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
)

// Reasons of this package's faults. Those of kit/sqlstore that mean the same are called the same.
const (
	ReasonAway     = "STORE_AWAY"      // no server answers, or it is starting or stopping
	ReasonReadOnly = "STORE_READ_ONLY" // it takes no writes
	ReasonFull     = "STORE_FULL"
	ReasonDenied   = "STORE_DENIED"  // wrong password or certificate, or a right is missing
	ReasonMissing  = "STORE_MISSING" // there is no such database
	ReasonNewer    = "STORE_NEWER"   // a newer version has written it
	ReasonFailed   = "STORE_FAILED"
	ReasonClosed   = "STORE_CLOSED"
	ReasonUnknown  = "STORE_IN_DOUBT" // the process ended before the server could say whether a commit counts
)

// Codes of SQL states.
const (
	stateReadOnly     = "25006"
	stateWrongUser    = "28000"
	stateWrongWord    = "28P01"
	stateNoDatabase   = "3D000"
	stateNoSchema     = "3F000"
	stateNoRight      = "42501"
	stateDeadlock     = "40P01"
	stateSerial       = "40001"
	stateLock         = "55P03"
	stateCancelled    = "57014"
	stateTooMany      = "53300"
	stateFull         = "53100"
	classConnection   = "08"
	classInternal     = "XX"
	classResources    = "53"
	classIntervention = "57"
	classSystem       = "58"
)

// NoRows tells the error of a Row that found nothing.
func NoRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// ill tells whether the server says that it, and not the statement, is the reason.
func ill(e *pgconn.PgError) bool {
	switch e.Code {
	case stateReadOnly, stateDeadlock, stateSerial, stateLock, stateNoRight, stateNoSchema:
		return true
	}
	switch {
	case strings.HasPrefix(e.Code, classResources), strings.HasPrefix(e.Code, classIntervention), strings.HasPrefix(e.Code, classSystem),
		strings.HasPrefix(e.Code, classConnection), strings.HasPrefix(e.Code, classInternal):
		return true
	}
	return false
}

// collided tells whether two processes stood in each other's way, and the same is worth another try at once.
func collided(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == stateDeadlock || e.Code == stateSerial)
}

// severed tells whether an error is the connection's own, and not the server's or the program's.
func severed(err error) bool {
	var said *pgconn.PgError
	var lost *pgconn.ConnectError
	var network net.Error
	switch {
	case err == nil:
		return false
	case errors.As(err, &lost):
		return true
	case errors.As(err, &said): // it says goodbye, and hangs up
		return strings.HasPrefix(said.Code, "57P") || strings.HasPrefix(said.Code, classConnection)
	}
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded) ||
		pgconn.Timeout(err) || strings.Contains(err.Error(), "conn closed") // pgconn has no name for that one
}

// Waits tells whether an error of the store goes by itself when the server is well again.
func Waits(err error) bool {
	var f *fault.Error
	return errors.As(err, &f) && (f.Reason == ReasonAway || f.Reason == ReasonReadOnly || f.Reason == ReasonFull)
}

// fault makes a fault of what the server or the network said; errors of the program's own stay as they are.
func (db *DB) fault(err error, doing string) error {
	var own *fault.Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return db.said(said, err, doing)
	}
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.As(err, &certificate), errors.As(err, &unknown), errors.As(err, &name):
		return db.wrap(err, codes.Unauthenticated, ReasonDenied, "the certificate of the PostgreSQL server at %s does not prove that it is the one: check sslrootcert and the host in store", db.where)
	case severed(err):
		return db.wrap(err, codes.Unavailable, ReasonAway, "PostgreSQL at %s does not answer: see that it runs and can be reached; what was committed is safe", db.where)
	}
	return err
}

func (db *DB) wrap(err error, code codes.Code, reason, format string, args ...any) error {
	return fault.Wrap(err, code, reason, format, args...).With("store", db.where)
}

func (db *DB) said(e *pgconn.PgError, err error, doing string) error {
	switch code := e.Code; {
	case code == stateWrongWord, code == stateWrongUser:
		return db.wrap(err, codes.Unauthenticated, ReasonDenied, "PostgreSQL at %s does not let this service in: check the user in store, the password in store_password_file, and the server's pg_hba.conf", db.where)
	case code == stateNoRight:
		return db.wrap(err, codes.PermissionDenied, ReasonDenied, "the user in store may not %s PostgreSQL at %s: grant it CREATE on the database and all on the schema %q", doing, db.where, db.cfg.Schema)
	case code == stateNoDatabase:
		return db.wrap(err, codes.FailedPrecondition, ReasonMissing, "PostgreSQL at %s has no such database: create it (createdb NAME), or name another in store", db.where)
	case code == stateReadOnly:
		return db.wrap(err, codes.Unavailable, ReasonReadOnly, "PostgreSQL at %s takes no writes: it is a standby, or default_transaction_read_only is on; name the primary in store, or turn it off", db.where)
	case code == stateFull:
		return db.wrap(err, codes.ResourceExhausted, ReasonFull, "PostgreSQL at %s has no space left: free some on its file system; what was committed is safe", db.where)
	case code == stateTooMany:
		return db.wrap(err, codes.Unavailable, ReasonAway, "PostgreSQL at %s has no connection left: raise max_connections (a process takes up to %d)", db.where, Readers+2)
	case code == stateCancelled, code == stateLock:
		return db.wrap(err, codes.Unavailable, ReasonAway, "PostgreSQL at %s took too long to %s: see what keeps it busy", db.where, doing)
	case strings.HasPrefix(code, classResources), strings.HasPrefix(code, classIntervention), strings.HasPrefix(code, classConnection), collided(err):
		return db.wrap(err, codes.Unavailable, ReasonAway, "PostgreSQL at %s is starting, stopping or out of resources", db.where)
	}
	return db.wrap(err, codes.FailedPrecondition, ReasonFailed, "PostgreSQL at %s cannot %s the store: see the server's log", db.where, doing)
}
