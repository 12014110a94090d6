package pki

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/kit/authority"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
)

// Lifetime is that of a service's certificate and of a revocation list. Both are made anew when half of it is over.
const Lifetime = 24 * time.Hour

// lookEvery is how soon a revocation is published, and a directory that was emptied filled again.
const lookEvery = time.Second

// ClientLifetime is that of a client's certificate, unless another is asked for, and MaxClientLifetime the longest.
const (
	ClientLifetime    = 365 * 24 * time.Hour
	MaxClientLifetime = 5 * ClientLifetime
)

// Publisher keeps the directories of services supplied.
type Publisher struct {
	store    *Store
	targets  []Target
	lifetime time.Duration
	log      *slog.Logger

	crl     []byte
	renewAt time.Time // of the list
	seen    []byte    // clients.json as it was when the list was made
	shown   []byte    // what of it people may see
}

// NewPublisher makes one; nothing is written yet.
func NewPublisher(s *Store, targets []Target, lifetime time.Duration, log *slog.Logger) *Publisher {
	return &Publisher{store: s, targets: targets, lifetime: lifetime, log: log}
}

// Sync writes what is due and returns at once. One directory that cannot be written keeps no other from being served.
func (p *Publisher) Sync() error {
	if err := p.list(); err != nil {
		return err
	}
	var errs []error
	for _, t := range p.targets {
		if err := p.serve(t); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// list makes a new revocation list where somebody was revoked, or the last one is half over.
func (p *Publisher) list() error {
	now := p.store.now()
	clients, err := readFile(filepath.Join(p.store.dir, fileClients))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return p.store.unusable(fileClients, err)
	}
	if p.crl != nil && now.Before(p.renewAt) && bytes.Equal(clients, p.seen) {
		return nil
	}
	var crl, shown []byte
	written, err := p.store.change(func(r *records) error {
		r.Number++
		r.forget(now)
		var err error
		if crl, err = p.store.List(r.Number, r.revoked(now), now, p.lifetime); err != nil {
			return err
		}
		shown, err = r.shown()
		return err
	})
	if err != nil {
		return err
	}
	p.shown = shown
	p.crl, p.seen, p.renewAt = crl, written, now.Add(p.lifetime/2)
	return nil
}

func (p *Publisher) serve(t Target) error {
	now := p.store.now()
	s, err := t.read()
	if err != nil {
		return err
	}
	due := t.due(s, p.store.Authority, now)
	if !due && bytes.Equal(s.crl, p.crl) && (!t.showsClients() || bytes.Equal(s.clients, p.shown)) {
		return nil
	}
	if due {
		pair, err := p.store.Issue(authority.Request{For: t.identity(), Hosts: t.Hosts, Now: now, Lifetime: p.lifetime})
		if err != nil {
			return err
		}
		s.cert, s.key = pair.Cert, pair.Key
		p.log.Info("certificate made", slog.String("service", t.Service), slog.Time("expires", pair.NotAfter))
	}
	s.ca, s.crl, s.clients = p.store.Cert(), p.crl, p.shown
	return t.write(s)
}

// Run supplies directories until ctx ends. What cannot be written at first is an error; later it is said once, and tried again. ready is called once all are served.
func Run(ctx context.Context, h home.Home, p *Publisher, ready func()) error {
	release, err := h.Lock(Process)
	if err != nil {
		return err
	}
	defer release()
	if err := p.Sync(); err != nil {
		return err
	}
	ready()
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		err := p.Sync()
		switch {
		case err == nil && said != "":
			p.log.Info("all directories are written again")
			said = ""
		case err != nil && err.Error() != said:
			said = err.Error()
			p.log.Error("a directory could not be written; it is tried again", logging.Err(err))
		}
	}
}

// WriteClient puts a client's files into a new directory.
func WriteClient(dir string, ca []byte, p *authority.Pair) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return unusable(dir, err)
	}
	for _, f := range ClientFiles(ca, p) {
		path := filepath.Join(dir, f.Name)
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			return fault.AlreadyExists("CLIENT_FILES_EXIST", "there is %s already: say another directory with --out DIR", path)
		}
		if err != nil {
			return unusable(path, err)
		}
		_, err = file.Write(f.Data)
		if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
			return unusable(path, err)
		}
	}
	return nil
}

// File is one of a client's.
type File struct {
	Name string
	Data []byte
}

// ClientFiles are what a client needs: no revocation list, since nobody brings it new ones.
func ClientFiles(ca []byte, p *authority.Pair) []File {
	return []File{{mtls.FileCA, ca}, {mtls.FileKey, p.Key}, {mtls.FileCert, p.Cert}}
}
