package mtls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
)

// Files of a directory of credentials.
const (
	FileCA   = "ca.crt"
	FileCert = "tls.crt"
	FileKey  = "tls.key"
	FileCRL  = "revoked.crl"
	// FileClients is in the gateway's directory alone: who may call the node from outside, for people to read. Nothing is decided by it.
	FileClients = "clients.json"
)

const (
	maxFile  = 1 << 20 // bytes; a revocation list of that size has some 25,000 entries
	maxCerts = 16      // CAs that are trusted at once: two while one replaces the other
)

// material is what a directory held when it was read; it never changes.
type material struct {
	sum      [sha256.Size]byte
	cert     tls.Certificate
	identity Identity
	roots    *x509.CertPool
	lists    []*list // nil where the directory has no revocation list
}

type list struct {
	issuer  []byte // raw
	until   time.Time
	revoked map[string]struct{} // serial numbers
}

// raw are the bytes of the four files.
type raw struct{ ca, cert, key, crl []byte }

func (r raw) sum() (out [sha256.Size]byte) {
	h := sha256.New()
	for _, b := range [][]byte{r.ca, r.cert, r.key, r.crl} {
		n := sha256.Sum256(b)
		_, _ = h.Write(n[:])
	}
	h.Sum(out[:0])
	return out
}

func readDir(dir string) (raw, error) {
	var r raw
	for _, f := range []struct {
		name     string
		to       *[]byte
		optional bool
	}{{FileCA, &r.ca, false}, {FileCert, &r.cert, false}, {FileKey, &r.key, false}, {FileCRL, &r.crl, true}} {
		b, err := readFile(filepath.Join(dir, f.name), f.name == FileKey)
		if f.optional && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if errors.Is(err, os.ErrNotExist) {
			return raw{}, fault.FailedPrecondition("TLS_FILES_MISSING", "there is no %s in %s: 'shallot pki run' writes it for a service of the node, 'shallot client add' for a client", f.name, dir)
		}
		if err != nil {
			return raw{}, fault.FailedPrecondition("TLS_FILES_UNREADABLE", "cannot read %s in %s", f.name, dir).Because(cause(err))
		}
		*f.to = b
	}
	return r, nil
}

// cause leaves out the path, which the message has.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func readFile(path string, secret bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no file")
	}
	if secret && info.Mode().Perm()&0o007 != 0 {
		return nil, errors.New("every user of this machine may read it: chmod 600 it, and have the certificate made anew")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return b, err
}

// parse takes files only when they belong together, so that files from before and after a change are never used with each other.
func parse(r raw, now time.Time) (*material, error) {
	m := &material{sum: r.sum(), roots: x509.NewCertPool()}
	cas, err := parseCAs(r.ca)
	if err != nil {
		return nil, err
	}
	for _, c := range cas {
		m.roots.AddCert(c)
	}
	if m.cert, err = tls.X509KeyPair(r.cert, r.key); err != nil {
		return nil, fmt.Errorf("%s and %s are no pair", FileCert, FileKey)
	}
	leaf := m.cert.Leaf
	if m.identity, err = IdentityOf(leaf); err != nil {
		return nil, fmt.Errorf("%s: %w", FileCert, err)
	}
	if now.After(leaf.NotAfter) {
		return nil, fmt.Errorf("%s expired at %s: renew it", FileCert, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: m.roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fmt.Errorf("%s is not of the CA in %s", FileCert, FileCA)
	}
	if m.lists, err = parseLists(r.crl, cas); err != nil {
		return nil, err
	}
	return m, nil
}

func parseCAs(b []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" || !c.IsCA {
			return nil, fmt.Errorf("%s holds something else than certificates of CAs", FileCA)
		}
		out = append(out, c)
	}
	if len(out) == 0 || len(out) > maxCerts {
		return nil, fmt.Errorf("%s holds %d certificates: it must be 1 to %d", FileCA, len(out), maxCerts)
	}
	return out, nil
}

func parseLists(b []byte, cas []*x509.Certificate) ([]*list, error) {
	var out []*list
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		crl, err := x509.ParseRevocationList(block.Bytes)
		if err != nil || len(out) == maxCerts {
			return nil, fmt.Errorf("%s is no revocation list", FileCRL)
		}
		signed := false
		for _, ca := range cas {
			signed = signed || crl.CheckSignatureFrom(ca) == nil
		}
		if !signed {
			return nil, fmt.Errorf("%s is not signed by the CA in %s", FileCRL, FileCA)
		}
		l := &list{issuer: crl.RawIssuer, until: crl.NextUpdate, revoked: make(map[string]struct{}, len(crl.RevokedCertificateEntries))}
		for _, e := range crl.RevokedCertificateEntries {
			l.revoked[string(e.SerialNumber.Bytes())] = struct{}{}
		}
		out = append(out, l)
	}
	if len(b) > 0 && len(out) == 0 {
		return nil, fmt.Errorf("%s is no revocation list", FileCRL)
	}
	return out, nil
}

// Why a certificate that its CA made does not count.
var (
	errRevoked = errors.New("the certificate was revoked")
	errNoList  = errors.New("there is no current revocation list of the certificate's CA")
)

// check judges a certificate whose chain was verified, now: it may have been revoked since. That it was in its time is asked when a connection is made, and connections
// have an age: a service that has renewed its certificate loses no call on those that it made with the old one. A directory without a revocation list is one of a
// client outside of the node, to whom nobody brings new ones.
func (m *material) check(cert *x509.Certificate, now time.Time) error {
	if m.lists == nil {
		return nil
	}
	// Of two lists of one CA each counts: whoever is on either is out.
	current := false
	for _, l := range m.lists {
		if string(l.issuer) != string(cert.RawIssuer) {
			continue
		}
		if _, ok := l.revoked[string(cert.SerialNumber.Bytes())]; ok {
			return errRevoked
		}
		current = current || now.Before(l.until)
	}
	if !current {
		return errNoList
	}
	return nil
}
