// Package authority is the certificate authority of one node: it makes the certificates that package mtls reads, and the list of those that were taken
// back. It keeps nothing on disk.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/shallot-net/shallot/kit/mtls"
)

const (
	// Lifetime is how long the authority itself lasts. Whoever gets a new one replaces all certificates with it.
	Lifetime = 10 * 365 * 24 * time.Hour
	// Skew is how far the clock of a machine may be behind: certificates and lists begin so long before they are made.
	Skew = 10 * time.Minute
)

// PEM types.
const (
	typeCertificate = "CERTIFICATE"
	typeKey         = "PRIVATE KEY"
	typeList        = "X509 CRL"
)

// Authority signs with its key. Safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// New makes an authority with a key of its own (ECDSA, P-256).
func New(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	var tag [8]byte // two nodes' authorities must not have one name: lists are found by it
	_, _ = rand.Read(tag[:])
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Shallot node CA " + hex.EncodeToString(tag[:])},
		NotBefore: now.Add(-Skew), NotAfter: now.Add(Lifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{cert, key}, err
}

// Load reads what Cert and Key gave.
func Load(certPEM, keyPEM []byte) (*Authority, error) {
	c, _ := pem.Decode(certPEM)
	k, _ := pem.Decode(keyPEM)
	if c == nil || k == nil || c.Type != typeCertificate || k.Type != typeKey {
		return nil, errors.New("it is no certificate and key of an authority")
	}
	cert, err := x509.ParseCertificate(c.Bytes)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(k.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the certificate is not of an authority, or the key is of another")
	}
	return &Authority{cert, key}, nil
}

// Cert is the authority's certificate, PEM: what everybody trusts.
func (a *Authority) Cert() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: a.cert.Raw})
}

// Key is the authority's key, PEM: whoever has it can be everybody.
func (a *Authority) Key() ([]byte, error) { return encodeKey(a.key) }

// Expires is when the authority itself ends.
func (a *Authority) Expires() time.Time { return a.cert.NotAfter }

// Request says what certificate is wanted.
type Request struct {
	For      mtls.Identity
	Hosts    []string // DNS names and IP addresses beside the service's name
	Now      time.Time
	Lifetime time.Duration
}

// Pair is a new certificate and its key, PEM.
type Pair struct {
	Cert, Key []byte
	Serial    *big.Int
	NotAfter  time.Time
}

// Issue makes a certificate with a key of its own. Services serve and call; those outside of the node only call.
func (a *Authority) Issue(r Request) (*Pair, error) {
	if !mtls.ValidName(r.For.Service) || (r.For.Client != "") != (r.For.Service == mtls.ServiceCLI) || r.For.Client != "" && !mtls.ValidName(r.For.Client) {
		return nil, fmt.Errorf("%q is no name of a service or client: lower case letters, digits, and -._ inside, 63 at most", r.For)
	}
	until := r.Now.Add(r.Lifetime)
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter // a longer one would not be believed
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: r.For.String()}, NotBefore: r.Now.Add(-Skew), NotAfter: until,
		URIs: []*url.URL{r.For.URI()}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if r.For.Service != mtls.ServiceCLI {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		t.DNSNames = []string{r.For.Service}
	}
	for _, h := range r.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != r.For.Service {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	return &Pair{Cert: pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: der}), Key: keyPEM, Serial: t.SerialNumber, NotAfter: until}, err
}

// Revoked is a certificate that was taken back.
type Revoked struct {
	Serial *big.Int
	At     time.Time
}

// List makes the revocation list, PEM. Of two lists the one with the higher number is the newer.
func (a *Authority) List(number int64, revoked []Revoked, now time.Time, lifetime time.Duration) ([]byte, error) {
	t := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-Skew), NextUpdate: now.Add(lifetime)}
	for _, r := range revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.Serial, RevocationTime: r.At})
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, a.cert, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeList, Bytes: der}), nil
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeKey, Bytes: der}), nil
}

// serial is 127 random bits, above zero.
func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	b[0] &= 0x7f
	b[0] |= 0x40
	return new(big.Int).SetBytes(b)
}
