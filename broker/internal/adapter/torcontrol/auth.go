package torcontrol

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cretz/bine/control"

	"github.com/shallot-net/shallot/broker/internal/app/onions"
)

const (
	cookieSize  = 32
	maxPassword = 1024
)

// authenticate proves to tor that this process may, and has tor prove that it knows the cookie before it hears anything of it. bine keeps what
// PROTOCOLINFO answered, so what is changed there is what it goes by.
func (t *Tor) authenticate(ctx context.Context, c *conn) error {
	info, err := c.ProtocolInfo() // kept since login asked
	if err != nil {
		return c.wrong(err)
	}
	if info.HasAuthMethod("NULL") {
		return refused("the control port of the tor at %s is open to everybody: set CookieAuthentication 1 in its torrc and reload it", t.cfg.Socket)
	}
	password := ""
	switch {
	case t.cfg.PasswordFile != "":
		if !info.HasAuthMethod("HASHEDPASSWORD") {
			return refused("the tor at %s takes no password: leave --password-file out, or set HashedControlPassword in its torrc and reload it", t.cfg.Socket)
		}
		if password, err = readPassword(t.cfg.PasswordFile); err != nil {
			return err
		}
		info.AuthMethods = []string{"HASHEDPASSWORD"}
	case info.HasAuthMethod("SAFECOOKIE"):
		if t.cfg.CookieFile != "" {
			info.CookieFile = t.cfg.CookieFile
		}
		if err := checkCookie(info); err != nil {
			return err
		}
		info.AuthMethods = []string{"SAFECOOKIE"}
	case info.HasAuthMethod("HASHEDPASSWORD"):
		return refused("the tor at %s wants a password: give the file that has it with --password-file, or set CookieAuthentication 1 in its torrc and reload it", t.cfg.Socket)
	default:
		return refused("the tor at %s offers no authentication that is known here: set CookieAuthentication 1 in its torrc and reload it", t.cfg.Socket)
	}
	err = c.ask(ctx, func() error { return c.Authenticate(password) })
	var no *onions.Rejected
	var bad *onions.Trouble
	switch {
	case err == nil:
		return nil
	case password != "" && errors.As(err, &no):
		return refused("the tor at %s does not take the password in %s: is it the one of HashedControlPassword?", t.cfg.Socket, t.cfg.PasswordFile)
	case errors.As(err, &no), errors.As(err, &bad) && bad.Refused:
		return refused("the cookie %.200q is not the one of the tor at %s: give that tor's CookieAuthFile with --cookie-file", info.CookieFile, t.cfg.Socket)
	}
	return err
}

// checkCookie looks at the file before bine reads it whole: a stranger at the control socket may have named anything.
func checkCookie(info *control.ProtocolInfo) error {
	path := info.CookieFile
	if !filepath.IsAbs(path) {
		return refused("tor says no absolute path of its cookie: give it with --cookie-file")
	}
	file, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refused("there is no cookie file %.200q, which tor names: where it is seen under another path, give that with --cookie-file", path)
	case err != nil:
		return refused("this user may not look at tor's cookie file %.200q: put it into the group that may (debian-tor where Debian's tor is used), or have its own tor", path)
	case !file.Mode().IsRegular() || file.Size() != cookieSize:
		return refused("%.200q is no cookie of tor, which is a file of %d bytes: give its CookieAuthFile with --cookie-file", path, cookieSize)
	}
	f, err := os.Open(path)
	if err != nil {
		return refused("this user may not read tor's cookie file %.200q: put it into the group that may (debian-tor where Debian's tor is used; CookieAuthFileGroupReadable 1), or have its own tor", path)
	}
	_ = f.Close()
	return nil
}

func readPassword(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", refused("the password file %s cannot be read: check --password-file and its permissions", path)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return "", refused("the password file %s must be a file that nobody else can read: chmod 600 it", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	password := strings.TrimRight(string(b), "\r\n")
	if err != nil || password == "" || len(password) > maxPassword || strings.ContainsAny(password, "\r\n\x00") {
		return "", refused("the password file %s must hold one line of at most %d bytes", path, maxPassword)
	}
	return password, nil
}
