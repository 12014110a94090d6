package mtls

import (
	"crypto/x509"
	"errors"
	"net/url"
	"regexp"
	"strings"
)

// Identity is who holds a certificate: a service of the node, or somebody whom the operator lets call it.
type Identity struct {
	Service string // "broker", "task", …; "cli" of a person or program outside of the node
	Client  string // of a cli: the name that the operator gave it; else ""
}

// ServiceCLI is the service name of everybody outside of the node.
const ServiceCLI = "cli"

const (
	uriScheme = "shallot"
	uriHost   = "node"
	maxURI    = 256
)

var names = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// ValidName tells whether a service or client can have this name: lower case, digits, dots, dashes and underlines inside, 63 bytes at most.
func ValidName(s string) bool { return names.MatchString(s) }

func (i Identity) String() string {
	if i.Client == "" {
		return i.Service
	}
	return i.Service + "/" + i.Client
}

// URI is what stands in the certificate.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: uriScheme, Host: uriHost, Path: "/" + i.String()}
}

var errUnnamed = errors.New("the certificate has no URI shallot://node/SERVICE, or more than one")

// IdentityOf reads the one URI of a certificate.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, errUnnamed
	}
	u := cert.URIs[0]
	service, client, isClient := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	i := Identity{service, client}
	// The URI is written in one way only, so that nothing that reads differently means the same.
	if !ValidName(service) || isClient != (service == ServiceCLI) || isClient && !ValidName(client) || len(u.String()) > maxURI || u.String() != i.URI().String() {
		return Identity{}, errUnnamed
	}
	return i, nil
}
