package tor_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/tor"
)

const fp = "0123456789ABCDEF0123456789abcdef01234567"

func TestCheckBridge(t *testing.T) {
	obfs := []string{"obfs4,webtunnel exec /usr/bin/lyrebird"}
	for line, want := range map[string]string{ // the bridge, and what the error says
		"192.0.2.1:443":                             "",
		"192.0.2.1:443 " + fp:                       "",
		"Bridge 192.0.2.1:443 " + fp:                "",
		"  [2001:db8::1]:443  ":                     "",
		"obfs4 192.0.2.1:1 " + fp + " cert=a#b,c=d": "",
		"webtunnel 192.0.2.1:1 url=https://x/y":     "",
		"":                                          "it is empty",
		"Bridge":                                    "it is empty",
		"obfs4":                                     "it has no address",
		"snowflake 192.0.2.1:1 " + fp:               "needs the pluggable transport snowflake",
		"bridge.example:443":                        "not IP:PORT",
		"obfs4 bridge.example:443":                  "not IP:PORT",
		"192.0.2.1":                                 "not IP:PORT",
		"192.0.2.1:0":                               "not IP:PORT",
		"192.0.2.1:70000":                           "not IP:PORT",
		"[fe80::1%eth0]:1":                          "not IP:PORT",
		"192.0.2.1:443 " + fp[1:]:                   "40 hexadecimal digits",
		"192.0.2.1:443 " + fp + " iat=0":            "does not name one",
		"obfs4 192.0.2.1:443 " + fp + " iat":        "not KEY=VALUE",
		"192.0.2.1:443\nControlPort 9051":           "line break",
		"192.0.2.1:443\rX":                          "line break",
		"obfs4 192.0.2.1:1 " + strings.Repeat("a", 5000) + "=1": "bytes",
	} {
		err := tor.CheckBridge(line, obfs)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60q: %v, and not %q", line, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "192.0.2.1") || strings.Contains(err.Error(), "example")) {
			t.Errorf("%q: the error shows the bridge: %v", line, err)
		}
	}
	if err := tor.CheckBridge("obfs4 192.0.2.1:1", []string{"nonsense"}); err == nil {
		t.Error("a transport that is none was taken")
	}
}

func TestCheckTransport(t *testing.T) {
	for line, want := range map[string]string{
		"obfs4 exec /usr/bin/obfs4proxy":               "",
		"obfs4,meek exec /usr/bin/lyrebird --log":      "",
		"ClientTransportPlugin obfs4 exec /bin/x":      "",
		"snowflake socks5 127.0.0.1:9000":              "",
		"":                                             "fewer than three",
		"obfs4 exec":                                   "fewer than three",
		"obfs-4 exec /bin/x":                           "is no name",
		"obfs4, exec /bin/x":                           "is no name",
		"obfs4 exec obfs4proxy":                        "does not begin with /",
		"obfs4 run /bin/x":                             "neither exec nor socks5",
		"obfs4 socks5 localhost:1":                     "not IP:PORT",
		"obfs4 exec /bin/x\n%include /etc/tor/other":   "line break",
		"obfs4 exec /bin/x\x00":                        "line break",
		"obfs4 exec /bin/" + strings.Repeat("x", 5000): "bytes",
	} {
		err := tor.CheckTransport(line)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60q: %v, and not %q", line, err, want)
		}
	}
}

func TestTorrcRefuses(t *testing.T) {
	good := tor.ClientConfig{Dir: "/d", RunDir: "/r"}
	if _, err := good.Torrc(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*tor.ClientConfig){
		"no directory":           func(c *tor.ClientConfig) { c.Dir = "" },
		"relative":               func(c *tor.ClientConfig) { c.Dir = "d" },
		"a line in Dir":          func(c *tor.ClientConfig) { c.Dir = "/d\nControlPort 9051" },
		"a line in RunDir":       func(c *tor.ClientConfig) { c.RunDir = "/d\rControlPort 9051" },
		"long socket":            func(c *tor.ClientConfig) { c.RunDir = "/" + strings.Repeat("r", 107-len("/tor-control.sock")) },
		"bad bridge":             func(c *tor.ClientConfig) { c.Bridges = []string{"x"} },
		"bridge without":         func(c *tor.ClientConfig) { c.Bridges = []string{"obfs4 192.0.2.1:1"} },
		"bad transport":          func(c *tor.ClientConfig) { c.PluggableTransports = []string{"x"} },
		"many bridges":           func(c *tor.ClientConfig) { c.Bridges = make([]string, 65) },
		"no authorities":         func(c *tor.ClientConfig) { c.Test = &tor.TestNetwork{} },
		"a line in an authority": func(c *tor.ClientConfig) { c.Test = &tor.TestNetwork{Authorities: []string{"a\nSocksPort 1"}} },
	} {
		c := good
		change(&c)
		text, err := c.Torrc()
		var f *fault.Error
		if !errors.As(err, &f) || text != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c.Write() == nil {
			t.Errorf("%s: it was written", name)
		}
	}
	c := good
	c.RunDir = "/" + strings.Repeat("r", 106-len("/tor-control.sock"))
	if _, err := c.Torrc(); err != nil || len(c.ControlSocket()) != 107 {
		t.Errorf("a socket path of %d bytes: %v", len(c.ControlSocket()), err)
	}
}

func TestWriteLooksForThePluggableTransport(t *testing.T) {
	dir := t.TempDir()
	c := tor.ClientConfig{Dir: filepath.Join(dir, "d"), RunDir: filepath.Join(dir, "r"), PluggableTransports: []string{"obfs4 exec " + dir + "/none"}}
	if err := c.Write(); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("a program that is missing: %v", err)
	}
}

// FuzzTorrc: whatever the values are, the options in the file are ours.
func FuzzTorrc(f *testing.F) {
	f.Add("/d", "/r", "192.0.2.1:443", "obfs4 exec /bin/x")
	f.Add("/d#\"\\", "/r \"", "obfs4 192.0.2.1:1 a=b\\", "obfs4 exec /bin/x \\")
	f.Add("/d\nX 1", "/r", "Bridge 192.0.2.1:1\u2028", "\"obfs4 exec /bin/x")
	known := map[string]bool{}
	for _, o := range strings.Fields("DataDirectory SocksPort ControlPort CookieAuthentication ClientOnly HiddenServiceSingleHopMode HiddenServiceNonAnonymousMode " +
		"DormantCanceledByStartup SafeLogging Log ClientTransportPlugin UseBridges Bridge") {
		known[o] = true
	}
	f.Fuzz(func(t *testing.T, dir, run, bridge, plugin string) {
		c := tor.ClientConfig{Dir: dir, RunDir: run, Bridges: []string{bridge}, PluggableTransports: []string{plugin}}
		text, err := c.Torrc()
		if err != nil {
			var f *fault.Error
			if !errors.As(err, &f) {
				t.Errorf("not a fault: %v", err)
			}
			return
		}
		seen := map[string]int{}
		for line := range strings.Lines(string(text)) {
			line = strings.TrimRight(line, "\n")
			if line == "" || line[0] == '#' {
				continue
			}
			name, value, _ := strings.Cut(line, " ")
			if !known[name] {
				t.Fatalf("the option %q is not ours", name)
			}
			seen[name]++
			quoted := strings.HasPrefix(value, `"`)
			if !quoted && strings.ContainsAny(value, "#\\\r") || quoted && (len(value) < 2 || value[len(value)-1] != '"') {
				t.Fatalf("tor reads another value than ours: %q", line)
			}
		}
		if seen["ControlPort"] != 1 || seen["SocksPort"] != 1 || seen["Bridge"] != 1 || seen["ClientTransportPlugin"] != 1 {
			t.Fatalf("%v", seen)
		}
	})
}

// TestTorTakesTheTorrc has tor itself read what Write makes, with names that are hard to quote.
func TestTorTakesTheTorrc(t *testing.T) {
	p := needTor(t)
	plugin := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(plugin, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plain", "with space", `quo"te`, "num#ber", `back\slash`, "ümlaut", `all "of\ it#`, "%s"} {
		dir := filepath.Join(shortDir(t), name)
		c := tor.ClientConfig{Dir: dir, RunDir: filepath.Join(dir, "run"), PluggableTransports: []string{"obfs4 exec " + plugin},
			Bridges: []string{"192.0.2.1:443 " + fp, "Bridge obfs4 192.0.2.2:443 " + fp + " cert=a#b"}}
		if err := c.Write(); err != nil {
			t.Fatal(err)
		}
		args := append(tor.Args(c.TorrcFile()), "--verify-config")
		if out, err := exec.CommandContext(t.Context(), p.Path, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		for _, d := range []string{c.Dir, c.RunDir, c.Dir + "/data"} {
			if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%s: %v, %v", d, info, err)
			}
		}
		// What it has understood, option by option.
		dump, err := exec.CommandContext(context.Background(), p.Path, append(tor.Args(c.TorrcFile()), "--dump-config", "short")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"UseBridges 1", "ClientOnly 1", "CookieAuthentication 1", "Bridge obfs4 192.0.2.2:443 " + fp + " cert=a#b"} {
			if !strings.Contains(string(dump), want) && !strings.Contains(strings.ReplaceAll(string(dump), `"`, ""), want) {
				t.Errorf("%s: tor does not have %q:\n%s", name, want, dump)
			}
		}
	}
}
