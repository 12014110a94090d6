package torcontrol

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
)

// Config of a Tor.
type Config struct {
	Socket       string                                      // path of the control socket
	CookieFile   string                                      // default: what tor says
	PasswordFile string                                      // default: the cookie
	Dial         func(ctx context.Context) (net.Conn, error) // default: Socket
}

// Tor is a control port; it implements onions.Tor.
type Tor struct{ cfg Config }

// New connects to nothing yet.
func New(cfg Config) *Tor {
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", cfg.Socket)
		}
	}
	return &Tor{cfg: cfg}
}

func refused(format string, args ...any) error {
	return &onions.Trouble{Refused: true, Detail: fmt.Sprintf(format, args...)}
}

func unreachable(format string, args ...any) error {
	return &onions.Trouble{Detail: fmt.Sprintf(format, args...)}
}

// Open makes both connections and looks whether this tor may be used: what would defeat anonymity is refused by name.
func (t *Tor) Open(ctx context.Context) (onions.Session, error) {
	s, err := t.open(ctx)
	if err != nil {
		return nil, t.told(err)
	}
	return s, nil
}

// told makes a no of tor to a question that each tor answers a refusal.
func (t *Tor) told(err error) error {
	var no *onions.Rejected
	if errors.As(err, &no) {
		return refused("what answers at %s is no tor that can be used (it says code %d): give the path of tor's control socket with --control unix:PATH", t.cfg.Socket, no.Code)
	}
	return err
}

func (t *Tor) open(ctx context.Context) (_ *session, err error) {
	s := &session{told: t.told, pow: true, events: make(chan onions.Event, maxEvents), done: make(chan struct{})}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.commands, s.version, err = t.login(ctx); err != nil {
		return nil, err
	}
	if s.warning, err = t.inspect(ctx, s.commands); err != nil {
		return nil, err
	}
	if s.listener, _, err = t.login(ctx); err != nil {
		return nil, err
	}
	if _, err = s.listener.send(ctx, "SETEVENTS HS_DESC STATUS_CLIENT NETWORK_LIVENESS"); err != nil {
		return nil, err
	}
	s.listener.raw.left = -1
	if err = s.listener.raw.SetDeadline(noDeadline); err != nil {
		return nil, s.listener.wrong(err)
	}
	s.reading.Go(s.read)
	return s, nil
}

// login connects and authenticates.
func (t *Tor) login(ctx context.Context) (_ *conn, version string, err error) {
	c, err := t.dial(ctx)
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	err = c.ask(ctx, func() error {
		info, err := c.ProtocolInfo()
		if err == nil {
			version = info.TorVersion
		}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if !onionsvc.NewEnough(version) {
		if !isVersion(version) {
			return nil, "", refused("what answers at %s does not say which version of tor it is: tor %s or newer is needed", t.cfg.Socket, onionsvc.MinVersion)
		}
		return nil, "", refused("tor %s at %s is too old: %s or newer is needed, since older ones do not shield their guards; upgrade tor", version, t.cfg.Socket, onionsvc.MinVersion)
	}
	return c, version, t.authenticate(ctx, c)
}

// isVersion keeps text of a stranger out of messages.
func isVersion(s string) bool {
	return s != "" && len(s) < 40 && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz.-+") == "" && strings.Count(s, ".") >= 2
}

// inspect refuses a configuration with which nothing is anonymous, and warns of one that is unwise.
func (t *Tor) inspect(ctx context.Context, c *conn) (warning string, err error) {
	r, err := c.send(ctx, "GETCONF HiddenServiceSingleHopMode HiddenServiceNonAnonymousMode SocksPort")
	if err != nil {
		return "", err
	}
	seen, socks, onionOnly := map[string]bool{}, false, true
	for _, line := range r.DataWithReply() {
		key, value, _ := strings.Cut(line, "=")
		switch key = strings.ToLower(key); key {
		case "hiddenservicesinglehopmode", "hiddenservicenonanonymousmode":
			seen[key] = true
			if value != "0" {
				return "", refused("the tor at %s runs onion services that are not anonymous: remove HiddenServiceSingleHopMode and HiddenServiceNonAnonymousMode from its torrc and restart it", t.cfg.Socket)
			}
		case "socksport":
			if value == "0" {
				continue
			}
			socks = true
			if !strings.Contains(strings.ToLower(" "+value+" "), " oniontrafficonly ") {
				onionOnly = false
			}
		}
	}
	switch {
	case len(seen) != 2:
		return "", refused("the tor at %s does not say whether its onion services are anonymous: it is not one that can be used", t.cfg.Socket)
	case !socks:
		return "this tor has no SocksPort, so nobody can be dialled: add SocksPort unix:PATH OnionTrafficOnly to its torrc", nil
	case !onionOnly:
		return "a SocksPort of this tor takes traffic for other things than onion services: add OnionTrafficOnly to it in the torrc", nil
	}
	return "", nil
}
