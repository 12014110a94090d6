// Package mtlstest writes directories of real credentials for tests.
package mtlstest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/authority"
	"github.com/shallot-net/shallot/kit/mtls"
)

// CA is an authority and what it has taken back.
type CA struct {
	*authority.Authority
	t       testing.TB
	revoked []authority.Revoked
	number  int64
	pairs   map[string]*authority.Pair
}

// NewCA makes an authority.
func NewCA(t testing.TB) *CA {
	t.Helper()
	a, err := authority.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &CA{Authority: a, t: t, pairs: map[string]*authority.Pair{}}
}

// Dir writes a directory for a service, or for "cli/NAME", that is valid for an hour.
func (c *CA) Dir(service string) string { return c.DirFor(service, time.Hour) }

// DirFor writes a directory whose certificate lasts so long from now; a time before now makes one that has expired.
func (c *CA) DirFor(service string, lifetime time.Duration) string {
	c.t.Helper()
	dir := c.t.TempDir()
	c.Write(dir, service, lifetime)
	return dir
}

// ID is the identity that a name of Dir is for.
func ID(service string) mtls.Identity {
	if dir, name := filepath.Split(service); dir != "" {
		return mtls.Identity{Service: filepath.Clean(dir), Client: name}
	}
	return mtls.Identity{Service: service}
}

// Write puts new files into dir.
func (c *CA) Write(dir, service string, lifetime time.Duration) {
	c.t.Helper()
	p, err := c.Issue(authority.Request{For: ID(service), Now: time.Now(), Lifetime: lifetime})
	if err != nil {
		c.t.Fatal(err)
	}
	c.pairs[service] = p
	c.put(dir, mtls.FileCA, c.Cert())
	c.put(dir, mtls.FileKey, p.Key)
	c.put(dir, mtls.FileCert, p.Cert)
	c.Publish(dir)
}

// Publish writes the revocation list into a directory.
func (c *CA) Publish(dir string) {
	c.t.Helper()
	c.number++
	crl, err := c.List(c.number, c.revoked, time.Now(), time.Hour)
	if err != nil {
		c.t.Fatal(err)
	}
	c.put(dir, mtls.FileCRL, crl)
}

// Revoke takes the last certificate of a service back; Publish says so.
func (c *CA) Revoke(service string) {
	c.revoked = append(c.revoked, authority.Revoked{Serial: c.pairs[service].Serial, At: time.Now()})
}

// Credentials opens a new directory for a service.
func (c *CA) Credentials(service string) *mtls.Credentials {
	c.t.Helper()
	return c.Open(c.Dir(service), mtls.Options{})
}

// Open opens a directory.
func (c *CA) Open(dir string, opts mtls.Options) *mtls.Credentials {
	c.t.Helper()
	creds, err := mtls.Open(dir, opts)
	if err != nil {
		c.t.Fatal(err)
	}
	return creds
}

func (c *CA) put(dir, name string, b []byte) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		c.t.Fatal(err)
	}
}
