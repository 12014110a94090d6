package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
)

// Config of the process.
type Config struct {
	config.Common
	Control      string `koanf:"control" help:"tor's control port, unix:/path (required); never a port of TCP, which anybody on the machine can reach"`
	CookieFile   string `koanf:"cookie_file" help:"tor's control cookie, where it is not seen under the path that tor says"`
	PasswordFile string `koanf:"password_file" help:"a file of mode 600 with the password of tor's HashedControlPassword; empty: the cookie"`
	MaxServices  int    `koanf:"max_services" help:"how many onion services are kept; each costs its tor some ten circuits"`
}

func defaults() Config { return Config{MaxServices: 70} }

// Validate checks what the tags cannot say.
func (c *Config) Validate() error {
	path, ok := strings.CutPrefix(c.Control, "unix:")
	switch {
	case c.Control == "":
		return errors.New("control is required: give tor's control socket with --control unix:/path, as ControlPort in its torrc has it")
	case !ok || !filepath.IsAbs(path):
		return fmt.Errorf("control is %q: it must be unix: and an absolute path; set ControlPort unix:/path in tor's torrc, since a TCP port is open to every program of the machine", c.Control)
	case len(path) > home.MaxSocketPath:
		return fmt.Errorf("the path of control has %d bytes and may have %d: use a shorter directory", len(path), home.MaxSocketPath)
	}
	for key, file := range map[string]string{"cookie_file": c.CookieFile, "password_file": c.PasswordFile} {
		if file != "" && !filepath.IsAbs(file) {
			return fmt.Errorf("%s is %q: it must be an absolute path", key, file)
		}
	}
	if c.CookieFile != "" && c.PasswordFile != "" {
		return errors.New("cookie_file and password_file are both given: tor is told one of them")
	}
	if e := c.Trace.Endpoint; e != "" && !strings.HasPrefix(e, "unix:") {
		return fmt.Errorf("trace.endpoint is %q: a process of an anonymous node calls nobody but by Unix sockets; give unix:/path of a collector on this machine", e)
	}
	if c.MaxServices < 1 || c.MaxServices > 1000 {
		return fmt.Errorf("max_services is %d: it must be 1 to 1000", c.MaxServices)
	}
	return nil
}

func (c *Config) socket() string { return strings.TrimPrefix(c.Control, "unix:") }
