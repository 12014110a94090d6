package mtls_test

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/mtls/mtlstest"
)

// shake has a service and a caller meet. The error is the caller's.
func shake(t *testing.T, server, client *mtls.Credentials, trouble *mtls.Trouble) (there, here net.Conn, err error) {
	t.Helper()
	creds, err := server.Server(func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	got := make(chan net.Conn, 1)
	go func() {
		c, _, err := creds.ServerHandshake(a)
		if err != nil {
			a.Close()
		}
		got <- c
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if here, _, err = client.Client("node", trouble).ClientHandshake(ctx, "node", b); err != nil {
		b.Close()
		<-got
		return nil, nil, err
	}
	if there = <-got; there == nil {
		t.Fatal("the service did not take its caller")
	}
	return there, here, nil
}

// A caller whose own list is stale says so, and does not blame who answers.
func TestAStaleListOfTheCaller(t *testing.T) {
	ca := mtlstest.NewCA(t)
	dir := ca.Dir("gateway")
	stale, err := ca.List(9, nil, time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, mtls.FileCRL), string(stale), 0o600)
	var trouble mtls.Trouble
	if _, _, err := shake(t, ca.Credentials("node"), ca.Open(dir, mtls.Options{}), &trouble); err == nil {
		t.Fatal("it took a certificate though it has no current list")
	}
	f := trouble.Err()
	if f == nil || f.Code != codes.Unauthenticated || !strings.Contains(f.Message, filepath.Base(mtls.FileCRL)+" in "+dir+" has expired") || strings.Contains(f.Message, "who answers there") {
		t.Errorf("it says %v", f)
	}
}

// What a connection waits for ends with it. gRPC drops one that it cannot write its first frames to, without a close: it has read nothing then.
func TestOnlyWhatIsReadIsWatched(t *testing.T) {
	ca := mtlstest.NewCA(t)
	server := ca.Credentials("node")
	there, here, err := shake(t, server, ca.Credentials("gateway"), &mtls.Trouble{})
	if err != nil {
		t.Fatal(err)
	}
	if n := server.Watched(); n != 0 {
		t.Errorf("%d connections are watched before the first read", n)
	}
	go func() { _, _ = here.Write([]byte("x")) }()
	if _, err := there.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n := server.Watched(); n != 1 {
		t.Errorf("%d connections are watched", n)
	}
	go func() { _, _ = here.Read(make([]byte, 1)) }() // the other side takes the goodbye
	_ = there.Close()
	if n := server.Watched(); n != 0 {
		t.Errorf("%d connections are watched after the end", n)
	}
}

// Who was taken out between the handshake and the first read is not heard.
func TestRevokedBeforeTheFirstRead(t *testing.T) {
	ca := mtlstest.NewCA(t)
	dir := ca.Dir("node")
	server := ca.Open(dir, mtls.Options{Poll: time.Millisecond})
	go func() { _ = server.Run(t.Context()) }()
	there, here, err := shake(t, server, ca.Credentials("gateway"), &mtls.Trouble{})
	if err != nil {
		t.Fatal(err)
	}
	ca.Revoke("gateway")
	ca.Publish(dir)
	eventually(t, "the new list is not read", func() bool { return server.Refuses(there) })
	go func() { _, _ = here.Write([]byte("x")) }()
	if n, err := there.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes of one that was revoked", n)
	}
}
