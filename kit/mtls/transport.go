package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/shallot-net/shallot/kit/fault"
)

// Reasons why somebody was refused: labels of metrics and words in the log.
const (
	RefusedPlain     = "plain_text"     // no TLS at all
	RefusedNone      = "no_certificate" // TLS without a certificate
	RefusedForeign   = "foreign"        // of another CA
	RefusedExpired   = "expired"
	RefusedRevoked   = "revoked"
	RefusedNoList    = "no_revocation_list" // this side has no current list: it is to blame, and lets nobody in
	RefusedUnnamed   = "unnamed"            // says no service
	RefusedWrong     = "wrong_certificate"  // not for this use
	RefusedGone      = "gone"               // went away, or took too long
	RefusedOther     = "other"              // another version or cipher, garbage
	RefusedForbidden = "forbidden"          // a good certificate, and a call that is not for its service
)

// authInfo is what a connection's handshake found out.
type authInfo struct {
	credentials.TLSInfo
	caller Identity
	leaf   *x509.Certificate
}

// Server are the credentials of a server. refused is told of each handshake that failed, and must not block. A directory without a revocation list is refused.
func (c *Credentials) Server(refused func(reason string)) (credentials.TransportCredentials, error) {
	if c.current.Load().lists == nil {
		return nil, fault.FailedPrecondition("TLS_FILES_MISSING", "there is no %s in %s, and without it nobody can be let in: 'shallot pki run' writes it", FileCRL, c.dir)
	}
	return &serverSide{c: c, refused: refused}, nil
}

type serverSide struct {
	c       *Credentials
	refused func(string)
}

// base is what both sides say. Sessions are not resumed: what was true of a certificate once is not asked again then.
func base(m *material) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{m.cert}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
}

func (s *serverSide) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	m := s.c.current.Load()
	info := &authInfo{}
	cfg := base(m)
	cfg.ClientCAs, cfg.ClientAuth, cfg.Time = m.roots, tls.RequireAndVerifyClientCert, s.c.opts.Now
	cfg.VerifyConnection = func(state tls.ConnectionState) (err error) {
		info.leaf = state.PeerCertificates[0]
		if info.caller, err = IdentityOf(info.leaf); err != nil {
			return err
		}
		return m.check(info.leaf, s.c.opts.Now())
	}
	secured, got, err := credentials.NewTLS(cfg).ServerHandshake(conn)
	if err != nil {
		s.refused(why(err))
		return nil, nil, err
	}
	info.TLSInfo, _ = got.(credentials.TLSInfo)
	return &guarded{Conn: secured, c: s.c, leaf: info.leaf}, info, nil
}

// guarded is a connection that ends, with all that goes over it, when its certificate is revoked. That is watched from the first read on: gRPC does not close what it cannot write its first
// frames to, and nothing would end the watch.
type guarded struct {
	net.Conn
	c       *Credentials
	leaf    *x509.Certificate
	watched bool // one goroutine reads
}

func (g *guarded) Read(b []byte) (int, error) {
	if !g.watched {
		g.watched = true
		g.c.watch(g, func() {
			if g.check() != nil {
				go g.Close() // which may wait for the other side
			}
		})
		if err := g.check(); err != nil { // it was revoked since the handshake
			return 0, err
		}
	}
	return g.Conn.Read(b)
}

func (g *guarded) check() error { return g.c.current.Load().check(g.leaf, g.c.opts.Now()) }

func (g *guarded) Close() error {
	g.c.unwatch(g)
	return g.Conn.Close()
}

func (s *serverSide) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are the credentials of a server")
}

func (s *serverSide) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", SecurityVersion: "1.3"} //nolint:staticcheck // the interface wants the field
}
func (s *serverSide) Clone() credentials.TransportCredentials { c := *s; return &c }
func (s *serverSide) OverrideServerName(string) error         { return nil }

// why puts a failed handshake into a class. crypto/tls has no types for all of them.
func why(err error) string {
	var record tls.RecordHeaderError
	var foreign x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &record):
		return RefusedPlain
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		return RefusedNone
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return RefusedExpired
	case errors.Is(err, errRevoked):
		return RefusedRevoked
	case errors.Is(err, errNoList):
		return RefusedNoList
	case errors.Is(err, errUnnamed):
		return RefusedUnnamed
	case errors.As(err, &foreign):
		return RefusedForeign
	case errors.As(err, &invalid):
		return RefusedWrong
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
		return RefusedGone
	}
	return RefusedOther
}

// Caller is who makes the call of a context, by the certificate of its connection; ok is false on a connection without TLS. A certificate that was revoked since
// the connection was made gives its reason.
func (c *Credentials) Caller(ctx context.Context) (who Identity, refused string, ok bool) {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return Identity{}, "", false
	}
	info, ok := p.AuthInfo.(*authInfo)
	if !ok {
		return Identity{}, "", false
	}
	if err := c.current.Load().check(info.leaf, c.opts.Now()); err != nil {
		return info.caller, why(err), true
	}
	return info.caller, "", true
}

// FromOutside tells whether the call of a context is of somebody outside of the node, by the certificate of its connection.
func FromOutside(ctx context.Context) bool {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return false
	}
	info, ok := p.AuthInfo.(*authInfo)
	return ok && info.caller.Service == ServiceCLI
}

// Trouble remembers why the last connection was not made, where a certificate was the reason. The zero value works.
type Trouble struct{ last atomic.Pointer[fault.Error] }

// Err is a fault with UNAUTHENTICATED, or nil.
func (t *Trouble) Err() *fault.Error { return t.last.Load() }

// Client are the credentials to call one service with: only its own certificate will do, wherever it is served.
func (c *Credentials) Client(service string, trouble *Trouble) credentials.TransportCredentials {
	return &clientSide{c: c, service: service, trouble: trouble}
}

type clientSide struct {
	c       *Credentials
	service string
	trouble *Trouble
}

var errOtherService = errors.New("the certificate is of another service")

func (s *clientSide) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	m := s.c.current.Load()
	cfg := base(m)
	// Every certificate has its service's name as a DNS name, too, so that the library's own check of names is made.
	cfg.RootCAs, cfg.ServerName, cfg.Time = m.roots, s.service, s.c.opts.Now
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		who, err := IdentityOf(leaf)
		if err != nil {
			return err
		}
		if who != (Identity{Service: s.service}) {
			return errOtherService
		}
		return m.check(leaf, s.c.opts.Now())
	}
	secured, info, err := credentials.NewTLS(cfg).ClientHandshake(ctx, authority, conn)
	if err != nil {
		s.trouble.handshake(s.c.dir, s.service, err)
		return nil, nil, err
	}
	return &watched{Conn: secured, trouble: s.trouble, service: s.service}, info, nil
}

func (s *clientSide) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are the credentials of a client")
}

func (s *clientSide) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", SecurityVersion: "1.3", ServerName: s.service} //nolint:staticcheck // gRPC takes the authority from it
}
func (s *clientSide) Clone() credentials.TransportCredentials { c := *s; return &c }
func (s *clientSide) OverrideServerName(string) error         { return nil }

// ReasonRefused is of an UNAUTHENTICATED fault: one side did not take the other's certificate.
const ReasonRefused = "CERTIFICATE_REFUSED"

func (t *Trouble) handshake(dir, service string, err error) {
	var verify *tls.CertificateVerificationError
	var host x509.HostnameError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, errNoList): // nothing is wrong there
		t.last.Store(fault.Unauthenticated(ReasonRefused, "%s in %s has expired, or is of another CA than the %s, and without a current one nobody is taken: 'shallot pki run' renews it, see that it runs and that what it writes comes there",
			FileCRL, dir, service).Because(err))
	case errors.As(err, &verify), errors.As(err, &host), errors.Is(err, errUnnamed), errors.Is(err, errOtherService), errors.Is(err, errRevoked):
		t.last.Store(fault.Unauthenticated(ReasonRefused, "who answers there did not show a current certificate of this node's %s: is it the right address, and are the credentials of that node?", service).Because(err))
	case errors.As(err, &record):
		t.last.Store(fault.Unauthenticated(ReasonRefused, "who answers there does not speak TLS, as the %s of this node does: is it the right address?", service).Because(err))
	case remote(err):
		t.refused(service, err)
	default:
		t.last.Store(nil)
	}
}

func (t *Trouble) refused(service string, err error) {
	t.last.Store(fault.Unauthenticated(ReasonRefused, "the %s there did not take this certificate: it has expired, was revoked, or is of another node; its operator makes another with 'shallot client add'", service).Because(err))
}

// remote tells an alert of the other side. With TLS 1.3 it comes after the handshake, which is over here before the other side has seen the certificate.
func remote(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

type watched struct {
	net.Conn
	trouble *Trouble
	service string
	read    bool // one goroutine reads
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	switch {
	case w.read:
	case n > 0:
		w.read = true
		w.trouble.last.Store(nil)
	case err != nil && remote(err):
		w.trouble.refused(w.service, err)
	}
	return n, err
}
