package access

import (
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

// How long a code may be used, once, and a session lasts.
const (
	CodeLifetime    = time.Minute
	SessionLifetime = 12 * time.Hour
)

// What is signed. Each kind has a key of its own, so that none is taken for another.
const (
	kindCode    = "code"
	kindSession = "session"
)

// maxWord bounds what is looked at as a code or a session, in bytes; they have some 200.
const maxWord = 1024

// method is the only one that is taken: what a stranger wrote does not choose it.
var method = jwt.SigningMethodHS256

// sign makes a word that says in whose token's name it is, until when, and which one of its kind.
func (k *Keyring) sign(kind string, c *Caller, id string, until time.Time) (string, error) {
	claims := jwt.RegisteredClaims{ID: id, Subject: c.Token, ExpiresAt: jwt.NewNumericDate(until)}
	return jwt.NewWithClaims(method, claims).SignedString(k.keys.Load().main.key(kind, c.hash))
}

// open reads what was signed, and whether it may be used: errors are those of jwt.
func (k *Keyring) open(kind, word string) (*Caller, error) {
	if len(word) > maxWord {
		return nil, jwt.ErrTokenMalformed
	}
	now, c := k.keys.Load(), &Caller{}
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(word, &claims, func(*jwt.Token) (any, error) {
		h, ok := now.tokens[claims.Subject]
		if !ok {
			return nil, jwt.ErrTokenUnverifiable
		}
		c.hash = h
		return now.main.key(kind, h), nil
	}, jwt.WithValidMethods([]string{method.Alg()}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(k.now), jwt.WithStrictDecoding())
	if err != nil {
		return nil, err
	}
	c.Token, c.Session, c.Until = claims.Subject, claims.ID, claims.ExpiresAt.Time
	return c, nil
}

// Code makes a code with which a browser begins a session, in the name of the token that was given.
func (k *Keyring) Code(c *Caller) (code string, lifetime time.Duration, err error) {
	code, err = k.sign(kindCode, c, rand.Text(), k.now().Add(CodeLifetime))
	return code, CodeLifetime, err
}

// Begin turns a code into a session: once. A second time ends that session, too. Errors are UNAUTHENTICATED with a reason that says what was wrong with it, and RESOURCE_EXHAUSTED where many are
// wrong; a good one is taken also then, so that nobody can keep others out by guessing.
func (k *Keyring) Begin(code string) (*Caller, string, error) {
	c, err := k.open(kindCode, code)
	if err != nil {
		k.look() // its token may be a new one
		c, err = k.open(kindCode, code)
	}
	if err == nil {
		err = k.spend(c.Session, c.Until, errUsed)
	} else {
		err = wrongCode(err)
	}
	if errors.Is(err, errUsed) {
		// Somebody else may have seen it, on a command line or a screen, and been quicker: what was begun with it ends.
		if err := k.End(&Caller{Token: c.Token, Session: sessionOf(c.Session), Until: c.Until.Add(SessionLifetime), hash: c.hash}); err != nil {
			return nil, "", err
		}
	}
	if err != nil {
		if !k.bad.AllowN(k.now(), 1) {
			return nil, "", fault.ResourceExhausted("CODES_TOO_MANY", "too many codes were wrong: wait some seconds, then let `shallot dashboard` make another one")
		}
		return nil, "", err
	}
	s := &Caller{Token: c.Token, Session: sessionOf(c.Session), Until: k.now().Add(SessionLifetime).Truncate(time.Second), hash: c.hash}
	word, err := k.sign(kindSession, s, s.Session, s.Until)
	return s, word, err
}

// sessionOf is the id of the session that a code begins.
func sessionOf(code string) string { return "s." + code }

func wrongCode(err error) error {
	if errors.Is(err, jwt.ErrTokenExpired) {
		return fault.Unauthenticated("CODE_EXPIRED", "this code is older than a minute: `shallot dashboard` makes another one")
	}
	return fault.Unauthenticated("CODE_WRONG", "this is no code of this gateway, or its token was revoked: `shallot dashboard` makes one")
}

// End ends a session, at every gateway of the node.
func (k *Keyring) End(c *Caller) error {
	err := k.spend(c.Session, c.Until, nil)
	k.mu.Lock()
	defer k.mu.Unlock()
	for h := range k.holds {
		if !k.good(&h.caller) {
			h.end()
		}
	}
	return err
}

// spend notes that what has this id is not to be used from now on; again is the error where it was noted before, nil where that is none. Where the shared file cannot
// be written, as with a token that is given read-only, it holds for this gateway alone.
func (k *Keyring) spend(id string, until time.Time, again error) error {
	k.mu.Lock()
	k.forget()
	_, had := k.spent[id]
	full := len(k.spent) >= maxSpent
	if !full {
		k.spent[id] = until
	}
	k.mu.Unlock()
	if had {
		return again
	}
	if full {
		return errTooManySpent
	}
	err := k.shared.change(k.now(), func(r *records) error {
		if _, had := r.Spent[id]; had {
			return errSpent
		}
		if len(r.Spent) >= maxSpent {
			return errTooManySpent
		}
		r.Spent[id] = until
		return nil
	})
	switch {
	case errors.Is(err, errSpent):
		return again
	case errors.Is(err, errTooManySpent):
		return err
	case err != nil:
		k.log.Warn("a code or session that is over is known to this gateway alone", logging.Err(err))
	}
	return nil
}

var (
	errUsed         error = fault.Unauthenticated("CODE_USED", "this code has been used before, perhaps by somebody else, and what was begun with it has been ended: `shallot dashboard` makes another one")
	errSpent              = errors.New("spent")
	errTooManySpent error = fault.ResourceExhausted("SESSIONS_TOO_MANY", "too many sessions were begun and ended: wait a minute")
)

// cookiePrefix is what the names of cookies of sessions begin with.
const cookiePrefix = "shallot_session"

// maxCookies is how many of them are looked at: one for each gateway of this machine that the browser was at.
const maxCookies = 64

// cookieName has the port in it: cookies do not know ports, and there may be a gateway on each.
func cookieName(r *http.Request) string {
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		return cookiePrefix + "_" + port
	}
	return cookiePrefix
}

// cookie finds who asks by the cookies of a request. Those of other ports count where they are good: gateways that share a token share its sessions.
// given tells that there was one of this port.
func (k *Keyring) cookie(r *http.Request) (c *Caller, given bool) {
	own, words := cookieName(r), []string(nil)
	for _, cookie := range r.Cookies() {
		switch {
		case cookie.Name == own:
			given, words = true, append([]string{cookie.Value}, words...)
		case strings.HasPrefix(cookie.Name, cookiePrefix+"_"):
			words = append(words, cookie.Value)
		}
	}
	for _, word := range words[:min(len(words), maxCookies)] {
		c, err := k.open(kindSession, word)
		if err != nil {
			continue
		}
		k.mu.Lock()
		good := k.good(c)
		k.mu.Unlock()
		if good {
			return c, given
		}
	}
	return nil, given
}

// SetCookie has the browser keep a session; nil takes all of this node's away from it. A page that came over TLS gets its cookie over TLS alone.
func (k *Keyring) SetCookie(w http.ResponseWriter, r *http.Request, s *Caller, word string) {
	cookie := http.Cookie{Name: cookieName(r), Value: word, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: strings.HasPrefix(r.Header.Get("Origin"), "https://"), MaxAge: -1}
	if s != nil {
		cookie.MaxAge = int(s.Until.Sub(k.now()) / time.Second)
		http.SetCookie(w, &cookie)
		return
	}
	names := []string{cookie.Name}
	for _, other := range r.Cookies() {
		if _, err := k.open(kindSession, other.Value); err == nil && strings.HasPrefix(other.Name, cookiePrefix) && !slices.Contains(names, other.Name) {
			names = append(names, other.Name)
		}
	}
	for _, cookie.Name = range names {
		http.SetCookie(w, &cookie)
	}
}
