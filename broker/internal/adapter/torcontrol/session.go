package torcontrol

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cretz/bine/control"
	"github.com/cretz/bine/torutil/ed25519"

	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
)

// maxEvents may wait for the keeper, which handles them between two commands; then the reader waits, and tor keeps the rest.
const maxEvents = 1024

// What tor answers.
const (
	codeSyntax    = 512
	codeArgument  = 513
	codeCollision = 550
	codeUnknown   = 552
)

var noDeadline time.Time

// session implements onions.Session.
type session struct {
	commands, listener *conn
	version, warning   string
	told               func(error) error
	pow                bool // tor has it, as far as is known
	events             chan onions.Event
	reading            sync.WaitGroup
	once               sync.Once
	done               chan struct{}
	err                error // before done is closed
}

func (s *session) Version() string             { return s.version }
func (s *session) Warning() string             { return s.warning }
func (s *session) Events() <-chan onions.Event { return s.events }
func (s *session) Done() <-chan struct{}       { return s.done }

// Err is why the session ended.
func (s *session) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

func (s *session) end(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.done)
	})
}

// Close ends both connections and waits for the reader.
func (s *session) Close() {
	s.end(unreachable("the connection to tor was closed"))
	for _, c := range []*conn{s.commands, s.listener} {
		if c != nil {
			c.close()
		}
	}
	s.reading.Wait()
}

// command is one line to tor. A *onions.Rejected leaves the session as it is; after anything else it cannot go on, since nobody knows whose answer comes next.
func (s *session) command(ctx context.Context, format string, args ...any) (*control.Response, error) {
	r, err := s.commands.send(ctx, format, args...)
	var no *onions.Rejected
	if err != nil && !errors.As(err, &no) {
		s.end(err)
	}
	return r, err
}

// Look asks for tor's connection to its network and its detached services.
func (s *session) Look(ctx context.Context) (onions.Seen, error) {
	r, err := s.command(ctx, "GETINFO status/bootstrap-phase network-liveness status/circuit-established status/enough-dir-info")
	if err != nil {
		return onions.Seen{}, s.told(err)
	}
	var seen onions.Seen
	for _, line := range r.Data {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "status/bootstrap-phase":
			if e, ok := parseBootstrap(value); ok {
				seen.Network.Progress, seen.Network.Tag = e.Progress, e.Tag
			}
		case "network-liveness":
			seen.Network.Live = value == "up"
		case "status/circuit-established":
			seen.Network.Circuits = value == "1"
		case "status/enough-dir-info":
			seen.Network.Directory = value == "1"
		}
	}
	r, err = s.command(ctx, "GETINFO onions/detached")
	var no *onions.Rejected
	if errors.As(err, &no) {
		return seen, nil // some versions say so that there are none
	}
	if err != nil {
		return onions.Seen{}, err
	}
	for _, line := range r.Data {
		_, value, _ := strings.Cut(line, "=")
		for _, id := range strings.Fields(value) {
			if onionsvc.CheckID(id) == nil {
				seen.Detached = append(seen.Detached, id)
			}
		}
	}
	return seen, nil
}

// Add makes a service.
func (s *session) Add(ctx context.Context, svc onionsvc.Service) error {
	work := svc.Work && s.pow
	r, err := s.command(ctx, "%s", addLine(svc, work))
	var no *onions.Rejected
	if work && errors.As(err, &no) && (no.Code == codeSyntax || no.Code == codeArgument) {
		// A tor without it calls the word a mistake; so it is asked again without, and knows it from now on if that was the mistake.
		if r, err = s.command(ctx, "%s", addLine(svc, false)); err == nil {
			s.pow = false
		}
	}
	if errors.As(err, &no) && no.Code == codeCollision {
		return onions.ErrCollision
	}
	if err != nil {
		return err
	}
	for _, line := range r.Data {
		if id, ok := strings.CutPrefix(line, "ServiceID="); ok && id == svc.ID {
			return nil
		}
	}
	err = refused("what answers as tor's control port made another onion service than it was asked for: is it tor?")
	s.end(err)
	return err
}

func addLine(svc onionsvc.Service, work bool) string {
	var b strings.Builder
	key := control.ED25519Key{KeyPair: ed25519.FromCryptoPrivateKey(svc.Key)}
	flags := "Detach"
	if len(svc.ClientKeys) > 0 {
		flags += ",V3Auth"
	}
	fmt.Fprintf(&b, "ADD_ONION %s:%s Flags=%s Port=%d,unix:%s", key.Type(), key.Blob(), flags, svc.Port, svc.Socket)
	if svc.MaxStreams > 0 {
		fmt.Fprintf(&b, " MaxStreams=%d", svc.MaxStreams)
	}
	if work {
		b.WriteString(" PoWDefensesEnabled=1")
	}
	for _, k := range svc.ClientKeys {
		b.WriteString(" ClientAuthV3=" + k)
	}
	return b.String()
}

// Delete ends a service.
func (s *session) Delete(ctx context.Context, id string) error {
	_, err := s.command(ctx, "DEL_ONION %s", id)
	var no *onions.Rejected
	if errors.As(err, &no) { // tor has no other reason to say no to an id that is one
		return onions.ErrUnknown
	}
	return err
}

// Authorize gives tor a client's private key.
func (s *session) Authorize(ctx context.Context, id string, key []byte) error {
	_, err := s.command(ctx, "ONION_CLIENT_AUTH_ADD %s x25519:%s", id, base64.StdEncoding.EncodeToString(key))
	var no *onions.Rejected
	if errors.As(err, &no) && no.Code/100 == 2 { // 252 is a yes, which bine takes for an error: the descriptor that tor has can be read now
		return nil
	}
	return err
}
