package rpc_test

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shallot-net/shallot/kit/authority"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
	"github.com/shallot-net/shallot/kit/rpc"
)

// refusals are the counts by reason and caller.
func refusals(t *testing.T, reg *prometheus.Registry) map[string]int {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, f := range families {
		if f.GetName() != rpc.MetricServerRefused {
			continue
		}
		for _, m := range f.GetMetric() {
			key := ""
			for _, l := range m.GetLabel() {
				if l.GetValue() != "" {
					key = strings.TrimPrefix(l.GetValue()+" "+key, " ")
				}
			}
			out[strings.TrimSpace(key)] += int(m.GetCounter().GetValue())
		}
	}
	return out
}

func TestCallersAreKnownByTheirCertificates(t *testing.T) {
	ca := mtlstest.NewCA(t)
	n := serveNode(t, rpc.ServerConfig{}, ca.Credentials("node"), nodeService(echo, standing("x")))
	for caller, want := range map[string]codes.Code{
		"cli/laptop": codes.OK, "gateway": codes.OK,
		"task": codes.PermissionDenied, "broker": codes.PermissionDenied, "node": codes.PermissionDenied, "stranger": codes.PermissionDenied,
	} {
		cc := dialNode(t, n.addr, ca, caller)
		for _, method := range []string{getNode, submitTask} {
			got, err := invoke(t.Context(), cc, method, "hello")
			if code := fault.From(err); want == codes.OK && (err != nil || got != "hello") || want != codes.OK && (code == nil || code.Code != want || code.Message != "the caller may not make this call") {
				t.Errorf("%s: %s gives %q, %v", caller, method, got, err)
			}
		}
		s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, runTask)
		if err == nil {
			err = s.RecvMsg(new(wrapperspb.StringValue))
		}
		if got := status.Code(fault2status(err)); got != want {
			t.Errorf("%s: a stream gives %v", caller, err)
		}
		if want == codes.OK {
			continue
		}
		if got := refusals(t, n.reg)[caller+" forbidden"] + refusals(t, n.reg)["forbidden "+caller]; got != 3 {
			t.Errorf("%s was refused %d times of 3: %v", caller, got, refusals(t, n.reg))
		}
		if got := strings.Count(n.log.String(), `"caller":"`+caller+`"`); got != 3 {
			t.Errorf("%d lines of %s in the log:\n%s", got, caller, n.log)
		}
	}
}

func fault2status(err error) error {
	if err == nil {
		return nil
	}
	return fault.From(err).GRPCStatus().Err()
}

// knock makes one connection as anybody could, and says how it ended. Without cfg it is plain text.
func knock(t *testing.T, addr string, cfg *tls.Config) error {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if cfg != nil {
		cfg.RootCAs, cfg.ServerName, cfg.NextProtos = nil, "node", []string{"h2"}
		cfg.InsecureSkipVerify = true // who knocks here trusts everybody
		c = tls.Client(c, cfg)
	}
	if _, err := c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
		return err
	}
	if cfg == nil { // a TLS server answers with an alert, in bytes
		b, err := io.ReadAll(c)
		if len(b) > 16 {
			t.Errorf("plain text is answered with %q", b)
		}
		return cmp.Or(err, io.EOF)
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestRefusedConnections(t *testing.T) {
	ca, other := mtlstest.NewCA(t), mtlstest.NewCA(t)
	dir := ca.Dir("node")
	revokedDir := ca.Dir("cli/gone")
	ca.Revoke("cli/gone")
	ca.Publish(dir)
	n := serveNode(t, rpc.ServerConfig{}, ca.Open(dir, mtls.Options{}), nodeService(echo, standing("x")))
	issue := func(ca *mtlstest.CA, age time.Duration) *tls.Certificate {
		c := pairOf(t, ca, authority.Request{For: mtlstest.ID("cli/x"), Now: time.Now().Add(-age), Lifetime: time.Hour})
		return &c
	}
	revoked, good := keyPair(t, revokedDir), issue(ca, 0)
	with := func(cert *tls.Certificate) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }}
	}
	for _, c := range []struct {
		name, reason string
		tls          *tls.Config
	}{
		{"no certificate", mtls.RefusedNone, with(&tls.Certificate{})},
		{"of another node", mtls.RefusedForeign, with(issue(other, 0))},
		{"expired", mtls.RefusedExpired, with(issue(ca, 2*time.Hour))},
		{"revoked", mtls.RefusedRevoked, with(&revoked)},
		{"another's, without its key", mtls.RefusedOther, with(&tls.Certificate{Certificate: good.Certificate, PrivateKey: issue(ca, 0).PrivateKey})},
		{"an older TLS", mtls.RefusedOther, &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*good}}},
		{"plain text", mtls.RefusedPlain, nil},
	} {
		before, loggedBefore := refusals(t, n.reg)[c.reason], strings.Count(n.log.String(), "connection refused")
		if err := knock(t, n.addr, c.tls); err == nil {
			t.Errorf("%s: let in", c.name)
		}
		n.waitRefused(t, c.reason, before+1)
		if logged := strings.Count(n.log.String(), "connection refused") - loggedBefore; logged != 1 || refusals(t, n.reg)[c.reason] != before+1 {
			t.Errorf("%s: counted %d, and %d lines in the log:\n%s", c.name, refusals(t, n.reg)[c.reason]-before, logged, n.log)
		}
	}
	if err := knock(t, n.addr, with(good)); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// waitRefused waits for the server to have counted; the client may know first.
func (n *secured) waitRefused(t *testing.T, reason string, want int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); ; {
		if refusals(t, n.reg)[reason] >= want && strings.Contains(n.log.String(), fmt.Sprintf("%q:%q", "reason", reason)) {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s is not counted: %v\n%s", reason, refusals(t, n.reg), n.log)
		}
	}
}

func pairOf(t *testing.T, ca *mtlstest.CA, r authority.Request) tls.Certificate {
	t.Helper()
	p, err := ca.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func keyPair(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, mtls.FileCert), filepath.Join(dir, mtls.FileKey))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A person is told at once, and in words, whose certificate was not taken; a call never waits for what will not mend itself.
func TestClientsSayWhoseCertificateWasNotTaken(t *testing.T) {
	ca, other := mtlstest.NewCA(t), mtlstest.NewCA(t)
	n := serveNode(t, rpc.ServerConfig{}, ca.Credentials("node"), nodeService(echo, standing("x")))
	task := serveNode(t, rpc.ServerConfig{}, ca.Credentials("task"), nodeService(echo, standing("x")))
	mixed := ca.Dir("cli/mixed") // this node's CA, and another's certificate
	both := append(ca.Cert(), other.Cert()...)
	other.Write(mixed, "cli/mixed", time.Hour)
	if err := os.WriteFile(filepath.Join(mixed, mtls.FileCA), both, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(mixed, mtls.FileCRL)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		addr  string
		creds *mtls.Credentials
		want  string
	}{
		"its own":                {n.addr, ca.Open(mixed, mtls.Options{}), "did not take this certificate"},
		"a server of another CA": {n.addr, other.Credentials("cli/x"), "did not show a current certificate"},
		"another service":        {task.addr, ca.Credentials("cli/x"), "did not show a current certificate"},
	} {
		cc := dial(t, c.addr, rpc.ClientConfig{Service: "the node", Peer: "node", TLS: c.creds})
		_, err := invoke(t.Context(), cc, getNode, "", rpc.Timeout(time.Minute))
		wantReason(t, err, codes.Unauthenticated, mtls.ReasonRefused)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, watchTask); fault.From(err) == nil || fault.From(err).Reason != mtls.ReasonRefused {
			t.Errorf("%s, a stream: %v", name, err)
		}
	}
}

func TestCertificatesAreRenewedUnderCalls(t *testing.T) {
	ca := mtlstest.NewCA(t)
	dir, clientDir := ca.Dir("node"), ca.Dir("cli/x")
	creds := ca.Open(dir, mtls.Options{Poll: 5 * time.Millisecond})
	clientCreds := ca.Open(clientDir, mtls.Options{Poll: 5 * time.Millisecond})
	for _, c := range []*mtls.Credentials{creds, clientCreds} {
		go func() { _ = c.Run(t.Context()) }()
	}
	n := serveNode(t, rpc.ServerConfig{}, creds, nodeService(echo, standing("x")))
	cc := dial(t, n.addr, rpc.ClientConfig{Peer: "node", TLS: clientCreds})
	stream, _ := open(t, t.Context(), cc, runTask)
	done, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := invoke(t.Context(), cc, submitTask, "x"); err != nil {
				failed <- err
				return
			}
		}
	}()
	serial := func() string { return servedSerial(t, n.addr, ca) }
	for range 3 {
		old := serial()
		ca.Write(dir, "node", time.Hour)
		ca.Write(clientDir, "cli/x", time.Hour)
		eventually(t, func() bool { return serial() != old })
	}
	close(done)
	if err := <-failed; err != nil {
		t.Errorf("a call was dropped: %v", err)
	}
	if err := stream.SendMsg(wrapperspb.String("still there")); err != nil {
		t.Errorf("the stream was dropped: %v", err)
	}
}

// servedSerial is the serial number of the certificate that new connections are shown.
func servedSerial(t *testing.T, addr string, ca *mtlstest.CA) string {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.Cert())
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool, ServerName: "node", MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func eventually(t *testing.T, what func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !what(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it never came")
		}
	}
}

// A certificate that is taken back ends what its holder has open, and opens nothing more.
func TestRevocationEndsConnections(t *testing.T) {
	ca := mtlstest.NewCA(t)
	dir := ca.Dir("node")
	creds := ca.Open(dir, mtls.Options{Poll: 5 * time.Millisecond})
	go func() { _ = creds.Run(t.Context()) }()
	n := serveNode(t, rpc.ServerConfig{}, creds, nodeService(echo, standing("x")))
	cc, friend := dialNode(t, n.addr, ca, "cli/thief"), dialNode(t, n.addr, ca, "cli/friend")
	stream, _ := open(t, t.Context(), cc, runTask)
	kept, _ := open(t, t.Context(), friend, runTask)
	ca.Revoke("cli/thief")
	ca.Publish(dir)
	if err := stream.RecvMsg(new(wrapperspb.StringValue)); err == nil {
		t.Error("the stream goes on")
	}
	var err error
	eventually(t, func() bool {
		_, err = invoke(t.Context(), cc, submitTask, "x")
		return err != nil && fault.From(err).Code == codes.Unauthenticated
	})
	if err := kept.SendMsg(wrapperspb.String("x")); err != nil {
		t.Errorf("another's stream: %v", err)
	}
	if _, err := invoke(t.Context(), friend, submitTask, "x"); err != nil {
		t.Errorf("another's call: %v", err)
	}
}

// Who has no current list cannot know who was taken out, and lets nobody in.
func TestStaleListLetsNobodyIn(t *testing.T) {
	ca := mtlstest.NewCA(t)
	dir := ca.Dir("node")
	stale, err := ca.List(9, nil, time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, mtls.FileCRL), stale, 0o600); err != nil {
		t.Fatal(err)
	}
	n := serveNode(t, rpc.ServerConfig{}, ca.Open(dir, mtls.Options{}), nodeService(echo, standing("x")))
	_, err = invoke(t.Context(), dialNode(t, n.addr, ca, "cli/x"), getNode, "")
	wantReason(t, err, codes.Unauthenticated, mtls.ReasonRefused)
	n.waitRefused(t, mtls.RefusedNoList, 1)
}

func TestNoFilesNoServer(t *testing.T) {
	ca := mtlstest.NewCA(t)
	dir := ca.Dir("node")
	if err := os.Remove(filepath.Join(dir, mtls.FileCRL)); err != nil {
		t.Fatal(err)
	}
	_, err := rpc.NewServer(rpc.ServerConfig{Process: "node", Listen: "127.0.0.1:0", TLS: ca.Open(dir, mtls.Options{})})
	wantReason(t, err, codes.FailedPrecondition, "TLS_FILES_MISSING")
	if err == nil || !strings.Contains(err.Error(), mtls.FileCRL) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v does not say what is missing", err)
	}
	_, err = rpc.Dial("broker:7000", rpc.ClientConfig{TLS: ca.Credentials("node")})
	wantReason(t, err, codes.InvalidArgument, "ENDPOINT_INVALID")
}

// Certificates are renewed long before they end, and connections that were made with the old one go on until they are of age: what is called on them is not lost.
func TestConnectionsOutliveTheirCertificates(t *testing.T) {
	ca := mtlstest.NewCA(t)
	var later atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	n := serveNode(t, rpc.ServerConfig{}, ca.Open(ca.Dir("node"), mtls.Options{Now: clock}), nodeService(echo, standing("x")))
	dial := func() *grpc.ClientConn {
		return dial(t, n.addr, rpc.ClientConfig{Peer: "node", TLS: ca.Open(ca.DirFor("gateway", time.Minute), mtls.Options{})})
	}
	cc := dial()
	if _, err := invoke(t.Context(), cc, submitTask, ""); err != nil {
		t.Fatal(err)
	}
	later.Store(int64(2 * time.Minute))
	if _, err := invoke(t.Context(), cc, submitTask, ""); err != nil {
		t.Errorf("on the connection that stands: %v", err)
	}
	_, err := invoke(t.Context(), dial(), submitTask, "")
	wantReason(t, err, codes.Unauthenticated, mtls.ReasonRefused)
}

// Whoever opens many connections and says nothing keeps nobody else out.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	ca := mtlstest.NewCA(t)
	n := serveNode(t, rpc.ServerConfig{}, ca.Credentials("node"), nodeService(echo, standing("x")))
	var first net.Conn
	for i := range 300 {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == 0 {
			first = c
		}
	}
	if _, err := invoke(t.Context(), dialNode(t, n.addr, ca, "cli/x"), getNode, ""); err != nil {
		t.Errorf("a call beside them: %v", err)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("it was answered")
	}
}
