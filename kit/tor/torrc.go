package tor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// ClientConfig is what a node's tor is to be: a client with Unix sockets, whose onion services come by its control port.
type ClientConfig struct {
	// Dir is where tor keeps its state (DIR/data) and where its torrc is. RunDir has its two sockets: a directory with a short path. Both absolute.
	Dir, RunDir string
	// Bridges are lines as CheckBridge takes them. With one or more of them tor goes through bridges only.
	Bridges []string
	// PluggableTransports are lines as CheckTransport takes them.
	PluggableTransports []string
	// Test makes it a client of a private network (Private.Client); nil: the public one.
	Test *TestNetwork
}

// TestNetwork is what a client needs to know of a private network.
type TestNetwork struct {
	Authorities []string // values of DirAuthority
}

// SocksSocket is the path of the socket for connections: SOCKS5, where user and password choose the circuit, and onion addresses only.
func (c ClientConfig) SocksSocket() string { return filepath.Join(c.RunDir, "tor-socks.sock") }

// ControlSocket is the path of the control port. Who reads CookieFile may use it.
func (c ClientConfig) ControlSocket() string { return filepath.Join(c.RunDir, "tor-control.sock") }

// CookieFile is the path of the 32 bytes that AUTHENTICATE takes. tor makes them at each start.
func (c ClientConfig) CookieFile() string { return filepath.Join(c.data(), "control_auth_cookie") }

// TorrcFile is the path of the configuration that Write makes.
func (c ClientConfig) TorrcFile() string { return filepath.Join(c.Dir, "torrc") }

func (c ClientConfig) data() string { return filepath.Join(c.Dir, "data") }

const clientHead = `# The tor of a Shallot node. This file is written anew at each start of the node: what is changed here is lost.

`

// Torrc is the configuration file. It is checked so that no value can become another option. Faults: TOR_CONFIG_INVALID, BRIDGE_INVALID,
// PLUGGABLE_TRANSPORT_INVALID.
func (c ClientConfig) Torrc() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	t := torrc{}
	t.WriteString(clientHead)
	t.say("State, keys and the cookie that opens the control port.")
	t.set("DataDirectory", c.data())
	t.say("Connections of the node: Unix only, so that a process without any network can use it. Each user name has circuits of its own; an address that is",
		"not an onion address dies here, and never at an exit; errors say what went wrong with an onion service.")
	t.set("SocksPort", "unix:"+cString(c.SocksSocket())+" IsolateSOCKSAuth OnionTrafficOnly ExtendedErrors")
	t.say("shallot-onion alone speaks to this one. Whoever does can learn this node's guards.")
	t.set("ControlPort", "unix:"+cString(c.ControlSocket()))
	t.set("CookieAuthentication", "1")
	t.say("It relays for nobody, and its onion services are never the fast kind that does not hide where they are.")
	t.set("ClientOnly", "1")
	t.set("HiddenServiceSingleHopMode", "0")
	t.set("HiddenServiceNonAnonymousMode", "0")
	t.say("A node that was idle for a day is still to be there after a restart.")
	t.set("DormantCanceledByStartup", "1")
	t.say("Addresses stay out of the log.")
	t.set("SafeLogging", "1")
	t.set("Log", "notice stdout")
	c.bridges(&t)
	if c.Test != nil {
		c.Test.write(&t)
	}
	return []byte(t.String()), nil
}

func (c ClientConfig) bridges(t *torrc) {
	if len(c.PluggableTransports) > 0 {
		t.say("Programs that make what tor sends look like something else.")
	}
	for _, p := range c.PluggableTransports {
		t.set("ClientTransportPlugin", transportValue(p))
	}
	if len(c.Bridges) > 0 {
		t.say("The ways into the network. No other is taken.")
		t.set("UseBridges", "1")
	}
	for _, b := range c.Bridges {
		t.set("Bridge", bridgeValue(b))
	}
}

// Torrc are the lines that make the tor of any torrc a client of the network, for one that is not made by Write. The values are the network's own.
func (n TestNetwork) Torrc() []byte {
	t := torrc{}
	n.write(&t)
	return []byte(t.String())
}

func (n TestNetwork) write(t *torrc) {
	t.say("A PRIVATE NETWORK ON THIS MACHINE, for tests and for trying things. It hides nothing.")
	t.set("TestingTorNetwork", "1")
	for _, a := range n.Authorities {
		t.set("DirAuthority", a)
	}
	t.testing()
	t.say("Many circuits at once and a busy machine: tor would learn a short time limit on the idle network and then abandon what takes longer. In the public network",
		"these would make this client stand out.")
	t.set("LearnCircuitBuildTimeout", "0")
	t.set("CircuitBuildTimeout", "60")
	t.set("MaxClientCircuitsPending", "256")
}

func (c ClientConfig) check() error {
	for what, p := range map[string]string{"tor's directory": c.Dir, "the directory of tor's sockets": c.RunDir} {
		if !filepath.IsAbs(p) {
			return fault.InvalidArgument(ReasonConfig, "%s is %q: give a path that begins with /", what, clip(p, 200))
		}
		if err := checkValue(what, p); err != nil {
			return err
		}
	}
	for _, s := range []string{c.SocksSocket(), c.ControlSocket()} {
		if len(s) > home.MaxSocketPath {
			return fault.InvalidArgument(ReasonConfig, "the path of the socket %s has %d bytes, and the system takes %d at most: use a shorter directory", s, len(s), home.MaxSocketPath)
		}
	}
	if len(c.Bridges) > maxBridges || len(c.PluggableTransports) > maxBridges {
		return fault.InvalidArgument(ReasonConfig, "%d bridges and %d pluggable transports are given, and %d of each at most are taken",
			len(c.Bridges), len(c.PluggableTransports), maxBridges)
	}
	for _, p := range c.PluggableTransports {
		if err := CheckTransport(p); err != nil {
			return err
		}
	}
	for _, b := range c.Bridges {
		if err := CheckBridge(b, c.PluggableTransports); err != nil {
			return err
		}
	}
	if c.Test == nil {
		return nil
	}
	if len(c.Test.Authorities) == 0 {
		return fault.InvalidArgument(ReasonConfig, "the private network has no authorities") // tor would take those of the public one
	}
	for _, a := range c.Test.Authorities {
		if err := checkValue("an authority of the private network", a); err != nil {
			return err
		}
	}
	return nil
}

// Write makes the directories (0700) and the configuration (0600), and checks that the programs of pluggable transports are there. It replaces what was there.
func (c ClientConfig) Write() error {
	text, err := c.Torrc()
	if err != nil {
		return err
	}
	for _, line := range c.PluggableTransports {
		_, program, _ := parseTransport(line)
		if info, err := os.Stat(program); program != "" && (err != nil || info.IsDir() || info.Mode().Perm()&0o111 == 0) {
			return fault.FailedPrecondition(ReasonTransport, "the pluggable transport's program %s is not there or cannot be run: install it, or give another path", program)
		}
	}
	for _, d := range []string{c.Dir, c.data(), c.RunDir} {
		if err := privateDir(d); err != nil {
			return err
		}
	}
	return writeTorrc(c.TorrcFile(), text)
}

// defaultsFile has nothing in it. Without it tor reads the machine's /etc/tor/torrc-defaults before our file.
const defaultsFile = "torrc-defaults"

// Args are the arguments with which a tor is run that has this configuration file.
func Args(torrc string) []string {
	return []string{"-f", torrc, "--defaults-torrc", filepath.Join(filepath.Dir(torrc), defaultsFile)}
}

func writeTorrc(path string, text []byte) error {
	defaults := []byte("# Nothing: it stands in for the machine's own defaults, which are for another tor.\n")
	for _, f := range []struct {
		path string
		text []byte
	}{{filepath.Join(filepath.Dir(path), defaultsFile), defaults}, {path, text}} {
		if err := home.WriteFile(f.path, f.text, 0o600); err != nil {
			return fault.FailedPrecondition(ReasonConfig, "cannot write %s: is the disk full?", f.path).Because(err)
		}
	}
	return nil
}

// privateDir makes a directory that only this user can enter, or makes an own one so. tor refuses others.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fault.FailedPrecondition(ReasonConfig, "cannot make the directory %s: check the path and its permissions", dir).Because(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fault.FailedPrecondition(ReasonConfig, "cannot look at %s", dir).Because(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Geteuid() {
		return fault.FailedPrecondition(ReasonConfig, "%s is not a directory of this user's: remove it or use another", dir)
	}
	if info.Mode().Perm() == 0o700 {
		return nil
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fault.FailedPrecondition(ReasonConfig, "cannot close %s to others", dir).Because(err)
	}
	return nil
}

// torrc is a configuration in the making.
type torrc struct{ strings.Builder }

func (t *torrc) say(lines ...string) {
	t.WriteByte('\n')
	for _, l := range lines {
		fmt.Fprintf(t, "# %s\n", l)
	}
}

// set writes one option. The value has passed checkValue.
func (t *torrc) set(option, value string) {
	// Unquoted, a # begins a comment and a \ at the end joins the next line.
	if strings.ContainsAny(value, `#\`) || strings.HasPrefix(value, `"`) {
		value = cString(value)
	}
	fmt.Fprintf(t, "%s %s\n", option, value)
}

// testing are the settings that all tors of a private network share.
func (t *torrc) testing() {
	t.set("AssumeReachable", "1")
	t.set("EnforceDistinctSubnets", "0")
	t.set("PathsNeededToBuildCircuits", "0.25")
}

// cString is a value in quotes, as tor reads it.
func cString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// checkValue refuses what could end a line of the configuration and begin another option.
func checkValue(what, s string) error {
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return fault.InvalidArgument(ReasonConfig, "%s has a line break or another control character in it: give it as one line of text", what)
		}
	}
	return nil
}
