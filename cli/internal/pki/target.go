package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/shallot-net/shallot/kit/authority"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/policy"
)

// consumerPrefix stands before the names of the services of a second node in one deployment; that one has an authority of its own.
const consumerPrefix = "consumer-"

// Target is the directory of one service.
type Target struct {
	Dir     string
	Service string   // "task"; "cli" for whoever is on the machine of the node itself
	Hosts   []string // names beside the service's: of its container, of its machine
}

// Services are the names that there are certificates for: the node's own processes, the database that keeps their state, and the operator's command beside them.
func Services() []string { return append(policy.Processes(), "gateway", "postgres", mtls.ServiceCLI) }

// operator is the name of the client that has a directory here. It is not in the list of clients: its certificate is one of a day, as those of services are.
const operator = "operator"

func (t Target) identity() mtls.Identity {
	if t.Service == mtls.ServiceCLI {
		return mtls.Identity{Service: t.Service, Client: operator}
	}
	return mtls.Identity{Service: t.Service}
}

// ParseTarget reads [NAME=]DIR, where NAME is the directory's own name unless it is given: a service's, or that behind "consumer-".
func ParseTarget(arg string) (Target, error) {
	name, dir, named := strings.Cut(arg, "=")
	if !named {
		name, dir = filepath.Base(filepath.Clean(arg)), arg
	}
	service := strings.TrimPrefix(name, consumerPrefix)
	if !slices.Contains(Services(), service) {
		hint := fault.Suggest(service, Services())
		if hint == "" {
			hint = "name it as in task=" + dir
		}
		return Target{}, fault.InvalidArgument("PKI_SERVICE_UNKNOWN", "%q is of no service (%s, each also with %s before it): %s", arg, strings.Join(Services(), ", "), consumerPrefix, hint)
	}
	if dir == "" {
		return Target{}, fault.InvalidArgument("PKI_SERVICE_UNKNOWN", "%q names no directory: say %s=DIR", arg, name)
	}
	t := Target{Dir: dir, Service: service}
	if name != service {
		t.Hosts = []string{name}
	}
	return t, nil
}

// The files of a directory are links through one link, "..data", to a directory with a set of them that never changes. Turning that link is what brings a new set in.
const (
	linkData   = "..data"
	prefixData = "..set-"
)

// files are those of the service's set.
func (t Target) files() []string {
	files := []string{mtls.FileCA, mtls.FileCert, mtls.FileKey, mtls.FileCRL}
	if t.showsClients() {
		files = append(files, mtls.FileClients)
	}
	return files
}

// showsClients tells whether the service shows people who may call the node.
func (t Target) showsClients() bool { return t.Service == "gateway" }

// set is what one service has.
type set struct{ ca, cert, key, crl, clients []byte }

func (s set) file(name string) []byte {
	return map[string][]byte{mtls.FileCA: s.ca, mtls.FileCert: s.cert, mtls.FileKey: s.key, mtls.FileCRL: s.crl, mtls.FileClients: s.clients}[name]
}

// read is what is there; files that are missing are empty.
func (t Target) read() (s set, err error) {
	for name, to := range map[string]*[]byte{mtls.FileCA: &s.ca, mtls.FileCert: &s.cert, mtls.FileKey: &s.key, mtls.FileCRL: &s.crl, mtls.FileClients: &s.clients} {
		b, err := readFile(filepath.Join(t.Dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return set{}, unusable(filepath.Join(t.Dir, name), err)
		}
		*to = b
	}
	return s, nil
}

// leaf is the certificate of a set, where it is a pair.
func (s set) leaf() *x509.Certificate {
	pair, err := tls.X509KeyPair(s.cert, s.key)
	if err != nil {
		return nil
	}
	return pair.Leaf
}

// due tells whether the service needs a new certificate: it has none of this authority, its names are others, or half of its time is over.
func (t Target) due(s set, ca *authority.Authority, now time.Time) bool {
	leaf := s.leaf()
	if leaf == nil || !bytes.Equal(s.ca, ca.Cert()) {
		return true
	}
	who, err := mtls.IdentityOf(leaf)
	if err != nil || who != t.identity() {
		return true
	}
	for _, h := range t.Hosts {
		if leaf.VerifyHostname(h) != nil {
			return true
		}
	}
	begin := leaf.NotBefore.Add(authority.Skew)
	return !now.Before(begin.Add(leaf.NotAfter.Sub(begin) / 2))
}

// write brings a new set in: whoever reads meanwhile finds the old one or the new one whole, also after a crash.
func (t Target) write(s set) error {
	if err := os.MkdirAll(t.Dir, 0o700); err != nil {
		return unusable(t.Dir, err)
	}
	dir, err := os.MkdirTemp(t.Dir, prefixData) // with 0700
	if err != nil {
		return unusable(t.Dir, err)
	}
	name, link := filepath.Base(dir), filepath.Join(t.Dir, linkData)
	before, _ := os.Readlink(link)
	if err = t.fill(dir, s); err == nil {
		err = renameio.Symlink(name, link)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return unusable(dir, err)
	}
	for _, f := range t.files() {
		path, want := filepath.Join(t.Dir, f), filepath.Join(linkData, f)
		if got, err := os.Readlink(path); err == nil && got == want {
			continue
		}
		if err := renameio.Symlink(want, path); err != nil {
			return unusable(path, err)
		}
	}
	if err := syncDir(t.Dir); err != nil {
		return unusable(t.Dir, err)
	}
	t.tidy(name, before)
	return nil
}

func (t Target) fill(dir string, s set) error {
	for _, name := range t.files() {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(s.file(name))
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// tidy removes sets that nobody reads any more: all but the new one and the one before it, which somebody may be reading.
func (t Target) tidy(keep ...string) {
	entries, err := os.ReadDir(t.Dir)
	if err != nil {
		return // writing will say why
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefixData) && !slices.Contains(keep, e.Name()) {
			_ = os.RemoveAll(filepath.Join(t.Dir, e.Name()))
		}
	}
}

// Check tells what a service would say of its directory now; nil is that it is well.
func (t Target) Check(now func() time.Time) error {
	c, err := mtls.Open(t.Dir, mtls.Options{Now: now})
	if err != nil {
		return err
	}
	if c.Identity() != t.identity() {
		return fault.FailedPrecondition("TLS_FILES_INVALID", "the credentials in %s are those of %s, not of %s", t.Dir, c.Identity(), t.Service)
	}
	s, err := t.read()
	if err != nil {
		return err
	}
	until, err := listUntil(s.crl)
	if err != nil || !now().Before(until) {
		return fault.FailedPrecondition("TLS_FILES_INVALID", "there is no current %s in %s: is 'shallot pki run' running?", mtls.FileCRL, t.Dir)
	}
	return nil
}

func listUntil(b []byte) (time.Time, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return time.Time{}, fmt.Errorf("it is no revocation list")
	}
	l, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		return time.Time{}, err
	}
	return l.NextUpdate, nil
}
