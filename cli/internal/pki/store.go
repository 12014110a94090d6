// Package pki is the certificate authority of one node, on disk: it keeps the directories of the node's services supplied with certificates, and knows the
// clients that it has let in. Only one process runs it, and beside that process's commands nobody reads its key.
package pki

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shallot-net/shallot/kit/authority"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/mtls"
)

// Process is its name in a home: HOME/state/pki.
const Process = "pki"

const (
	fileKey     = "ca.key"
	fileClients = "clients.json"
	fileLock    = "clients.lock"
	maxFile     = 8 << 20 // bytes
	maxClients  = 10_000
	forgetAfter = 30 * 24 * time.Hour // a client whose certificate expired so long ago is not listed any more
)

// Store is the authority's directory. Several processes may use it at once.
type Store struct {
	dir string
	now func() time.Time
	*authority.Authority
}

// Client is somebody outside of the node who may call it.
type Client struct {
	Name    string     `json:"name"`
	Serial  string     `json:"serial"` // hex
	Added   time.Time  `json:"added"`
	Expires time.Time  `json:"expires"`
	Revoked *time.Time `json:"revoked,omitempty"`
}

// records are what clients.json holds.
type records struct {
	Number  int64    `json:"list_number"` // of the last revocation list
	Clients []Client `json:"clients"`
}

// Open reads the authority of a home, and makes it where there is none.
func Open(h home.Home, now func() time.Time) (*Store, error) {
	if err := h.CheckFormat(Process); err != nil {
		return nil, err
	}
	s := &Store{dir: h.State(Process), now: now}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	cert, err := readFile(filepath.Join(s.dir, mtls.FileCA))
	if errors.Is(err, fs.ErrNotExist) {
		return s, s.create()
	}
	if err != nil {
		return nil, s.unusable(mtls.FileCA, err)
	}
	key, err := readFile(filepath.Join(s.dir, fileKey))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.FailedPrecondition("PKI_KEY_MISSING", "there is %s in %s and no %s: bring it back from a backup, or remove the directory, and all services and clients get new certificates", mtls.FileCA, s.dir, fileKey)
	}
	if err != nil {
		return nil, s.unusable(fileKey, err)
	}
	if s.Authority, err = authority.Load(cert, key); err != nil {
		return nil, fault.FailedPrecondition("PKI_INVALID", "%s and %s in %s cannot be used: bring them back from a backup", mtls.FileCA, fileKey, s.dir).Because(err)
	}
	return s, nil
}

// create writes the key first: without a certificate beside it, it has signed nothing and is made anew.
func (s *Store) create() (err error) {
	if s.Authority, err = authority.New(s.now()); err != nil {
		return err
	}
	key, err := s.Key()
	if err != nil {
		return err
	}
	if err := home.WriteFile(filepath.Join(s.dir, fileKey), key, 0o600); err != nil {
		return s.unusable(fileKey, err)
	}
	if err := home.WriteFile(filepath.Join(s.dir, mtls.FileCA), s.Cert(), 0o600); err != nil {
		return s.unusable(mtls.FileCA, err)
	}
	return nil
}

func (s *Store) unusable(name string, err error) error {
	return unusable(filepath.Join(s.dir, name), err)
}

func unusable(path string, err error) error {
	return fault.FailedPrecondition("PKI_DIRECTORY_UNUSABLE", "cannot use %s: see who owns its directory, and that it is writable and has room", path).Because(reason(err))
}

// reason is an error without the path, which the message has.
func reason(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// lock waits until no other process changes the store.
func (s *Store) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, fileLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, s.unusable(fileLock, err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, s.unusable(fileLock, err)
	}
	return func() { _ = f.Close() }, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return b, err
}

func (s *Store) read() (*records, error) {
	b, err := readFile(filepath.Join(s.dir, fileClients))
	if errors.Is(err, fs.ErrNotExist) {
		return &records{}, nil
	}
	if err != nil {
		return nil, s.unusable(fileClients, err)
	}
	var r records
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fault.FailedPrecondition("PKI_INVALID", "%s is not as this program writes it: bring it back from a backup", filepath.Join(s.dir, fileClients)).Because(err)
	}
	return &r, nil
}

// change reads, changes and writes the records while no other process does, and returns what it wrote.
func (s *Store) change(f func(r *records) error) ([]byte, error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := s.read()
	if err != nil {
		return nil, err
	}
	if err := f(r); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := home.WriteFile(filepath.Join(s.dir, fileClients), b, 0o600); err != nil {
		return nil, s.unusable(fileClients, err)
	}
	return b, nil
}

// Clients are those whose certificates have not expired long ago, in the order in which they were added.
func (s *Store) Clients() ([]Client, error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := s.read()
	if err != nil {
		return nil, err
	}
	return r.Clients, nil
}

// Add makes a client's certificate. Where save fails the client is as if it had never been: its certificate is revoked.
func (s *Store) Add(name string, lifetime time.Duration, save func(*authority.Pair) error) (Client, error) {
	now := s.now()
	pair, err := s.Issue(authority.Request{For: mtls.Identity{Service: mtls.ServiceCLI, Client: name}, Now: now, Lifetime: lifetime})
	if err != nil {
		return Client{}, fault.InvalidArgument("CLIENT_INVALID", "%v", err)
	}
	c := Client{Name: name, Serial: pair.Serial.Text(16), Added: now.UTC().Truncate(time.Second), Expires: pair.NotAfter.UTC()}
	// It is known before anybody has it: a certificate that nobody remembers could not be taken back.
	_, err = s.change(func(r *records) error {
		r.forget(now)
		for _, old := range r.Clients {
			if old.Name == name && old.Revoked == nil && now.Before(old.Expires) {
				return fault.AlreadyExists("CLIENT_EXISTS", "there is a client %s: take another name, or revoke that one first with 'shallot client revoke %s'", name, name)
			}
		}
		if len(r.Clients) >= maxClients {
			return fault.ResourceExhausted("CLIENTS_TOO_MANY", "there are %d clients, and more are not kept: revoke some, they are forgotten %v after they would have expired", len(r.Clients), forgetAfter)
		}
		r.Clients = append(r.Clients, c)
		return nil
	})
	if err != nil {
		return Client{}, err
	}
	if err := save(pair); err != nil {
		return Client{}, errors.Join(err, s.revoke(func(x Client) bool { return x.Serial == c.Serial }, nil))
	}
	return c, nil
}

// Revoke takes back what a name has. It is known to the services when the list has been published.
func (s *Store) Revoke(name string) error {
	return s.revoke(func(c Client) bool { return c.Name == name }, func(r *records) error {
		var names []string
		for _, c := range r.Clients {
			names = append(names, c.Name)
		}
		hint := fault.Suggest(name, names)
		if hint == "" {
			hint = "'shallot client ls' lists them"
		}
		return fault.NotFound("CLIENT_NOT_FOUND", "there is no client %q: %s", name, hint)
	})
}

func (s *Store) revoke(which func(Client) bool, none func(*records) error) error {
	_, err := s.change(func(r *records) error {
		now, found := s.now().UTC().Truncate(time.Second), false
		for i := range r.Clients {
			c := &r.Clients[i]
			if !which(*c) {
				continue
			}
			found = true
			if c.Revoked == nil {
				c.Revoked = &now
			}
		}
		if !found && none != nil {
			return none(r)
		}
		return nil
	})
	return err
}

func (r *records) forget(now time.Time) {
	kept := r.Clients[:0]
	for _, c := range r.Clients {
		if now.Before(c.Expires.Add(forgetAfter)) {
			kept = append(kept, c)
		}
	}
	r.Clients = kept
}

// shown is what people may see of the clients in a browser: neither serials nor anything that opens something.
func (r *records) shown() ([]byte, error) {
	type client struct {
		Name    string    `json:"name"`
		Added   time.Time `json:"added_at"`
		Expires time.Time `json:"expires_at"`
		Revoked bool      `json:"revoked"`
	}
	list := []client{}
	for _, c := range r.Clients {
		list = append(list, client{c.Name, c.Added, c.Expires, c.Revoked != nil})
	}
	return json.Marshal(map[string]any{"clients": list})
}

// revoked are those that could still be used.
func (r *records) revoked(now time.Time) (out []authority.Revoked) {
	for _, c := range r.Clients {
		n, ok := new(big.Int).SetString(c.Serial, 16)
		if ok && c.Revoked != nil && now.Before(c.Expires.Add(authority.Skew)) {
			out = append(out, authority.Revoked{Serial: n, At: *c.Revoked})
		}
	}
	return out
}
