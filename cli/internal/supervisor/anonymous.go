package supervisor

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/fence"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/tor"
)

// Anonymity is what an anonymous node has and an open one has not.
type Anonymity struct {
	// Way is how its processes are enclosed; fence.Open where the user does without.
	Way fence.Way
	// Tor says how it gets to Tor.
	Tor TorSettings
	// Program is the node's own tor, unless Tor names one that runs already.
	Program tor.Program
	// Test is the private Tor network that the node is of; nil: the public one.
	Test *tor.TestNetwork
}

// TorSettings say how a node gets to Tor.
type TorSettings struct {
	// Control and Socks are the sockets of a tor that runs already, unix:/path both; empty: the node has its own.
	Control string `json:"control,omitempty"`
	Socks   string `json:"socks,omitempty"`
	// Bridges and Transports are lines as tor takes them, for the node's own.
	Bridges    []string `json:"bridges,omitempty"`
	Transports []string `json:"pluggable_transports,omitempty"`
}

// None takes back what was given before, in place of a bridge or a socket.
const None = "none"

// given puts what a user gave over what was before. A tor of the system has bridges of its own, so one of the two is forgotten for the other.
func (t TorSettings) given(before *TorSettings) TorSettings {
	var out TorSettings
	if before != nil {
		out = *before
	}
	if len(t.Bridges)+len(t.Transports) > 0 {
		out.Control, out.Socks = "", ""
	}
	if t.Control != "" {
		out = TorSettings{}
		if t.Control != None {
			out.Control, out.Socks = t.Control, t.Socks
		}
	}
	for _, l := range []struct {
		given []string
		kept  *[]string
	}{{t.Bridges, &out.Bridges}, {t.Transports, &out.Transports}} {
		switch {
		case slices.Equal(l.given, []string{None}):
			*l.kept = nil
		case len(l.given) > 0:
			*l.kept = l.given
		}
	}
	return out
}

// Check says what is wrong with settings as a user gave them.
func (t TorSettings) Check() error {
	if (t.Control == "") != (t.Socks == "") || (t.Control == None) != (t.Socks == None) {
		return fault.InvalidArgument("TOR_SOCKETS_INVALID", "a tor that runs already has a socket to control it and one for connections: give both --tor-control unix:PATH and --tor-socks unix:PATH, or neither")
	}
	if t.Control != "" && t.Control != None {
		if len(t.Bridges)+len(t.Transports) > 0 {
			return fault.InvalidArgument("TOR_SOCKETS_INVALID", "--bridge and --pluggable-transport are for a tor that shallot starts: put them into the configuration of the one that runs already, or leave --tor-control and --tor-socks out")
		}
		for flag, s := range map[string]string{"--tor-control": t.Control, "--tor-socks": t.Socks} {
			if err := checkSocket(flag, s); err != nil {
				return err
			}
		}
	}
	given := t.given(nil)
	for _, l := range given.Transports {
		if err := tor.CheckTransport(l); err != nil {
			return err
		}
	}
	for _, l := range given.Bridges {
		if l == None {
			return fault.InvalidArgument("BRIDGE_INVALID", "--bridge none takes back the bridges that were given before: give it alone, or without it the bridges that are to be used")
		}
	}
	return nil
}

// checkSocket refuses what can never be the socket of tor. One that is not there may come.
func checkSocket(flag, s string) error {
	path, ok := strings.CutPrefix(s, "unix:")
	if !ok || !filepath.IsAbs(path) {
		return fault.InvalidArgument("TOR_SOCKETS_INVALID", "%s %q is not unix:/path: an anonymous node has no network to reach any other; have tor listen there (its torrc: ControlPort unix:/path, SocksPort unix:/path)", flag, s)
	}
	if len(path) > home.MaxSocketPath {
		return fault.InvalidArgument("TOR_SOCKETS_INVALID", "%s: the path has %d bytes and may have %d: use a shorter one", flag, len(path), home.MaxSocketPath)
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return fault.InvalidArgument("TOR_SOCKETS_INVALID", "%s: %s is there and is no socket: give the path that tor's torrc has after ControlPort unix: and SocksPort unix:", flag, path)
	}
	return nil
}

// own tells whether the node starts a tor.
func (t TorSettings) own() bool { return t.Control == "" }

// client is the configuration of a node's own tor.
func (a *Anonymity) client(h home.Home) tor.ClientConfig {
	return tor.ClientConfig{Dir: filepath.Join(h.Dir, Tor), RunDir: filepath.Dir(h.Socket(Tor)), Bridges: a.Tor.Bridges, PluggableTransports: a.Tor.Transports, Test: a.Test}
}

// arguments of the processes that know of tor.
func (a *Anonymity) onion(h home.Home) []string {
	if !a.Tor.own() {
		return []string{"--control", a.Tor.Control}
	}
	c := a.client(h)
	return []string{"--control", "unix:" + c.ControlSocket(), "--cookie-file", c.CookieFile()}
}

func (a *Anonymity) broker(h home.Home, role string) []string {
	socks := a.Tor.Socks
	if a.Tor.own() {
		socks = "unix:" + a.client(h).SocksSocket()
	}
	args := []string{"--mode", Anonymous, "--onion.socks", socks}
	if role == Provider { // a consumer only dials
		args = append(args, "--onion.service=true")
	}
	if a.Way == fence.Open {
		args = append(args, "--unfenced=true")
	}
	return args
}

// fenceState is what people are told.
func (a *Anonymity) fenceState() string {
	switch {
	case a == nil:
		return ""
	case a.Way == fence.Open:
		return "none"
	}
	return "enclosed"
}

// enclosed tells which processes are: all but those that have to do with the outside.
func enclosed(process string) bool { return process != Tor && process != Onion && process != "gateway" }

// findFence finds out how processes are enclosed, and says it aloud where they are not to be.
func findFence(ctx context.Context, unfenced bool, print *Printer) (fence.Way, error) {
	if unfenced {
		print.Printf("WARNING: --unfenced: nothing but the programs themselves keeps this node's traffic inside Tor; a mistake in one of them can show where this machine is")
		return fence.Open, nil
	}
	way, err := fence.Available(ctx)
	if err == nil {
		print.Printf("fence: broker, services and executors have no network but Tor's socket (%s)", way)
	}
	return way, err
}

// warnOffline is for a tor that is started where it reaches nobody, such as in a container without a network.
func (p *Printer) warnOffline() {
	if f, err := fence.Observe(); err == nil && f.Enclosed {
		p.Printf("WARNING: there is no network interface here, and a tor that is started here reaches nobody: name one that runs outside, --tor-control unix:PATH --tor-socks unix:PATH")
	}
}

// FindTor looks for tor beside the other programs and then where it is installed.
func (f Finder) FindTor() (tor.Program, error) {
	for _, dir := range f.Dirs {
		path := filepath.Join(dir, Tor)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return tor.Find(path)
		}
	}
	if !f.Path {
		return tor.Program{}, f.missing(Tor)
	}
	return tor.Find("")
}
