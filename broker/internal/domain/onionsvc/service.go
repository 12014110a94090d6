// Package onionsvc is what is true of onion services and of tor's connection to its network, whoever speaks to tor.
package onionsvc

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

const (
	maxSocket  = 107   // bytes of a Unix socket's path on Linux
	maxStreams = 65535 // more tor does not take
	maxClients = 256   // the keys of more would not fit a descriptor
	idLength   = 56
	keyLength  = 52 // of an X25519 public key in base32
	idVersion  = 3
)

var base32NoPadding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Invalid says that a request can never be done, whatever the state. Its text has no key and no service id.
type Invalid struct{ Reason, Text string }

func (e *Invalid) Error() string { return e.Text }

func invalid(reason, format string, args ...any) error {
	return &Invalid{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// Service is one onion service as it is asked for. Its key is in memory only: never log it.
type Service struct {
	ID         string // 56 characters, without .onion
	Key        ed25519.PrivateKey
	Socket     string // absolute path
	Port       uint16
	MaxStreams uint32 // 0: no limit
	Work       bool   // proof of work, where tor has it
	ClientKeys []string
}

// Request is what New checks.
type Request struct {
	Seed       []byte
	Socket     string
	Port       uint32
	MaxStreams uint32
	Work       bool
	ClientKeys []string
}

// New checks a request; the error is an *Invalid.
func New(r Request) (Service, error) {
	if len(r.Seed) != ed25519.SeedSize {
		return Service{}, invalid("KEY_INVALID", "the key seed has %d bytes: an Ed25519 seed has %d", len(r.Seed), ed25519.SeedSize)
	}
	if err := checkSocket(r.Socket); err != nil {
		return Service{}, err
	}
	if r.Port < 1 || r.Port > 65535 {
		return Service{}, invalid("PORT_INVALID", "the port is %d: it must be 1 to 65535", r.Port)
	}
	if r.MaxStreams > maxStreams {
		return Service{}, invalid("MAX_STREAMS_INVALID", "max_streams is %d: it must be 0, for no limit, to %d", r.MaxStreams, maxStreams)
	}
	clients, err := clientKeys(r.ClientKeys)
	if err != nil {
		return Service{}, err
	}
	key := ed25519.NewKeyFromSeed(r.Seed)
	return Service{ID: ID(key.Public().(ed25519.PublicKey)), Key: key, Socket: r.Socket, Port: uint16(r.Port), MaxStreams: r.MaxStreams, Work: r.Work, ClientKeys: clients}, nil
}

// checkSocket refuses what tor cannot be told: a value on the control port has no quoting, so that a blank would end it and a line break would begin
// another command.
func checkSocket(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return invalid("SOCKET_INVALID", "the socket %.120q is no absolute path", path)
	case len(path) > maxSocket:
		return invalid("SOCKET_INVALID", "the socket's path has %d bytes and may have %d: use a shorter directory", len(path), maxSocket)
	}
	for _, c := range []byte(path) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("/._-+@~", c) >= 0 {
			continue
		}
		return invalid("SOCKET_INVALID", "the socket's path %q has characters that tor does not take: use a directory with ASCII letters, digits and ._-+@~ only", path)
	}
	return nil
}

// clientKeys checks keys and puts them into one order, so that the same clients are the same request.
func clientKeys(keys []string) ([]string, error) {
	if len(keys) > maxClients {
		return nil, invalid("CLIENT_KEY_INVALID", "%d client keys: a service takes %d", len(keys), maxClients)
	}
	out := make([]string, 0, len(keys))
	for i, k := range keys {
		k = strings.ToUpper(k)
		if b, err := base32NoPadding.DecodeString(k); err != nil || len(k) != keyLength || len(b) != 32 {
			return nil, invalid("CLIENT_KEY_INVALID", "client key %d of %d is not 52 characters of base32: it must be an X25519 public key without padding", i+1, len(keys))
		}
		out = append(out, k)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Digest tells whether two requests for one service are the same. It holds no key.
func (s Service) Digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %d %d %t %q", s.Socket, s.Port, s.MaxStreams, s.Work, s.ClientKeys)
	return hex.EncodeToString(h.Sum(nil))
}

// ID is the service id of a public key.
func ID(key ed25519.PublicKey) string {
	b := make([]byte, 0, 35)
	b = append(append(append(b, key...), checksum(key)...), idVersion)
	return strings.ToLower(base32NoPadding.EncodeToString(b))
}

func checksum(key []byte) []byte {
	sum := sha3.Sum256(append(append([]byte(".onion checksum"), key...), idVersion))
	return sum[:2]
}

// CheckID refuses what is no service id, lower case and without .onion; the error is an *Invalid.
func CheckID(id string) error {
	b, err := base32NoPadding.DecodeString(strings.ToUpper(id))
	if len(id) != idLength || id != strings.ToLower(id) || err != nil || len(b) != 35 || b[34] != idVersion || !bytes.Equal(b[32:34], checksum(b[:32])) {
		return invalid("SERVICE_ID_INVALID", "this is no address of a version 3 onion service: it must be 56 characters in lower case, without .onion, and its checksum must hold")
	}
	return nil
}

// CheckClientKey refuses what is no X25519 private key; the error is an *Invalid.
func CheckClientKey(key []byte) error {
	if len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		return invalid("CLIENT_KEY_INVALID", "the client key has %d bytes or is empty: it must be an X25519 private key of 32 bytes", len(key))
	}
	return nil
}
