package tor_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/tor"
)

func TestParseVersion(t *testing.T) {
	for said, want := range map[string]string{
		"Tor version 0.4.9.11.\nThis build of Tor is covered by …": "0.4.9.11",
		"Tor version 0.4.8.13-dev (git-7c1601fb6edd780f).":         "0.4.8.13",
		"Tor version 0.4.7.1-alpha.":                               "0.4.7.1",
		"0.4.9.11":                                                 "0.4.9.11",
		"Tor version 0.4.9.":                                       "",
		"Tor version 0.4.9.-1.":                                    "",
		"Tor version 0.4.9.99999.":                                 "",
		"GNU bash, version 5.2.15":                                 "",
		"":                                                         "",
	} {
		v, err := tor.ParseVersion(said)
		if (err == nil) != (want != "") || err == nil && v.String() != want {
			t.Errorf("%q: %v, %v", said, v, err)
		}
	}
	for _, pair := range [][2]tor.Version{{{0, 4, 7, 16}, {0, 4, 8, 1}}, {{0, 4, 9, 2}, {0, 4, 9, 11}}, {{0, 4, 9, 11}, {1, 0, 0, 0}}} {
		if !pair[0].Before(pair[1]) || pair[1].Before(pair[0]) || pair[0].Before(pair[0]) {
			t.Errorf("%v and %v are in the wrong order", pair[0], pair[1])
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("Tor version 0.4.9.11.\nmore")
	f.Add("0.0.0.65536-x")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := tor.ParseVersion(s)
		if err != nil {
			return
		}
		if again, err := tor.ParseVersion(v.String()); err != nil || again != v {
			t.Errorf("%q: %v became %v, %v", s, v, again, err)
		}
	})
}

// fakeTor is a program that answers as the script says.
func fakeTor(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tor")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func answers(version, modules string) string {
	return `case "$1" in --version) echo "Tor version ` + version + `." ;; --list-modules) printf '` + modules + `' ;; *) exit 1 ;; esac`
}

func TestFind(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "tor")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, reason, says string }{
		"missing":       {"/nowhere/tor", tor.ReasonNotFound, "apt-get install tor"},
		"directory":     {t.TempDir(), tor.ReasonNotFound, "is a directory"},
		"not a program": {plain, tor.ReasonUnusable, "make it executable"},
		"too old":       {fakeTor(t, answers("0.4.6.10", "")), tor.ReasonTooOld, "is tor 0.4.6.10, and 0.4.7.1 is the oldest"},
		"another":       {fakeTor(t, "echo GNU bash, version 5"), tor.ReasonUnusable, "is not tor"},
		"fails":         {fakeTor(t, "echo library missing; exit 127"), tor.ReasonUnusable, "library missing"},
		"talks a lot":   {fakeTor(t, "head -c 1000000 /dev/zero"), tor.ReasonUnusable, "is not tor"},
	} {
		_, err := tor.Find(c.path)
		var f *fault.Error
		if !errors.As(err, &f) || f.Reason != c.reason || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []struct {
		version, modules string
		pow, control     bool
	}{
		{"0.4.7.16", "relay: yes\\ndirauth: yes\\n", false, false},
		{"0.4.8.13", "relay: yes\\npow: yes\\n", true, false},
		{"0.4.9.11", "relay: yes\\npow: yes\\n", true, true},
		{"0.4.9.11", "relay: yes\\npow: no\\n", false, false},
	} {
		p, err := tor.Find(fakeTor(t, answers(c.version, c.modules)))
		if err != nil || p.Version.String() != c.version || p.PoW() != c.pow || p.PoWByControl() != c.control {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
	}
}

func TestFindLooksBesidePath(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := tor.Find("no-such-tor")
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != tor.ReasonNotFound || !strings.Contains(err.Error(), "/usr/sbin") {
		t.Errorf("%v", err)
	}
}
