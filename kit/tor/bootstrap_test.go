package tor_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/shallot-net/shallot/kit/tor"
)

func TestParseBootstrap(t *testing.T) {
	for line, want := range map[string]tor.Bootstrap{
		"Nov 26 12:55:37.000 [notice] Bootstrapped 0% (starting): Starting":                                    {Percent: 0, Tag: "starting", Summary: "Starting"},
		"Nov 26 12:55:37.000 [notice] Bootstrapped 45% (requesting_descriptors): Asking for relay descriptors": {Percent: 45, Tag: "requesting_descriptors", Summary: "Asking for relay descriptors"},
		"[notice] Bootstrapped 100% (done): Done":                                                              {Percent: 100, Tag: "done", Summary: "Done"},
		"[notice] Bootstrapped 100%: Done":                                                                     {Percent: 100, Summary: "Done"},
	} {
		if b, ok := tor.ParseBootstrap(line); !ok || b != want {
			t.Errorf("%q: %+v, %v", line, b, ok)
		}
	}
	for _, line := range []string{
		"", "Bootstrapped 5%", "[warn] Bootstrapped 5% (conn): x", "[notice] Bootstrapped 101% (x): y", "[notice] Bootstrapped -1% (x): y", "[notice] Bootstrapped % (x): y",
		"[notice] Opened Socks listener; Bootstrapped 5% (conn): x", "[other] Bootstrapped 5% (conn): x",
	} {
		if b, ok := tor.ParseBootstrap(line); ok {
			t.Errorf("%q: %+v", line, b)
		}
	}
}

func FuzzParseBootstrap(f *testing.F) {
	f.Add("Nov 26 12:55:37.000 [notice] Bootstrapped 45% (requesting_descriptors): Asking for relay descriptors")
	f.Add("[notice] Bootstrapped 100%")
	f.Add("[notice] Bootstrapped 1% (" + strings.Repeat("\xff", 300) + ")")
	f.Fuzz(func(t *testing.T, line string) {
		b, ok := tor.ParseBootstrap(line)
		if !ok && b != (tor.Bootstrap{}) {
			t.Errorf("%q: %+v, and not one", line, b)
		}
		if b.Percent < 0 || b.Percent > 100 || len(b.Tag) > 3*64 || len(b.Summary) > 3*200 || !utf8.ValidString(b.Tag+b.Summary) {
			t.Errorf("%q: %+v", line, b)
		}
	})
}
