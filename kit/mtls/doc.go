// Package mtls is mutual TLS between the services of one node: who a certificate is for, a directory of credentials that is read again while the process
// runs, and the two ends of a connection. Certificates are made elsewhere ('shallot pki'); this package only reads.
//
// A directory holds ca.crt, tls.crt, tls.key and revoked.crl, all PEM. TLS is 1.3, both sides show a certificate of the node's own CA, and a holder
// is known by the URI shallot://node/SERVICE in it, never by an address.
package mtls
