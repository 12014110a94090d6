package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/logging"
)

const (
	peer  = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	onion = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd"
)

func TestGuardScrubsWhateverLooksLikeAnAddress(t *testing.T) {
	for _, secret := range []string{
		peer, "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8",
		onion + ".onion", onion, onion + ":4001", "/onion3/" + onion + ":4001/p2p/" + peer, "expyuzz4wqqyqhjn.onion",
		"/ip4/192.168.1.7/tcp/4001", "/ip6/2001:db8::1/udp/1/quic-v1", "/dns4/node.example.net/tcp/1", "/p2p/" + peer,
		"203.0.113.9:443", "203.0.113.9", "[2001:db8::1]:443", "[2001:db8::1]", "2001:db8::1", "::ffff:203.0.113.9", "2001:db8:1:2:3:4:5:6", "fe80::1%eth0",
	} {
		for _, format := range logging.Formats {
			var out bytes.Buffer
			log := logging.New(&out, "debug", format, "test")
			log.Info("dialling "+secret+" now", "plain", secret, "lines", "a\n"+secret+"\tb<"+secret+">", "err", errors.New("dial "+secret+": refused"),
				slog.Group("g", "struct", struct{ A []string }{[]string{secret}}), "bytes", json.RawMessage(`"`+secret+`"`))
			for _, part := range []string{secret, peer, onion, "192.168", "203.0", "db8", "node.example"} {
				if strings.Contains(out.String(), part) {
					t.Errorf("%s: %s is in %s", format, part, out.String())
				}
			}
			if format == "json" && !json.Valid(out.Bytes()) {
				t.Errorf("no JSON: %s", out.String())
			}
		}
	}
}

func TestGuardLeavesTheRest(t *testing.T) {
	for _, s := range []string{"listening on 127.0.0.1:8080", "[::1]:80", "at 10:11:12", "2026-01-02T03:04:05.678Z", "v1.2.3", "task 0123456789abcdef0123456789abcdef",
		"std::vector", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "1.2.3.4.5", "took 1.5s: ok", "unix:/tmp/x/run/task.sock", "0.0.0.0:80"} {
		if got := logging.Scrub(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}

func TestHelpersCorrelateWithoutTelling(t *testing.T) {
	var out bytes.Buffer
	log := logging.New(&out, "", "", "test")
	log.Info("a", logging.Peer("alice"), logging.Addr("1.2.3.4:5"), logging.Secret("token", "hush"), logging.Err(errors.New("why")))
	log.Debug("hidden")
	var line map[string]string
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["process"] != "test" || line["error"] != "why" || line["peer"] != logging.Redact("alice") || logging.Redact("alice") == logging.Redact("bob") {
		t.Errorf("%v", line)
	}
	for _, s := range []string{"alice", "1.2.3.4", "hush", "hidden"} {
		if strings.Contains(out.String(), s) {
			t.Errorf("%s is in %s", s, out.String())
		}
	}
}

func TestPeersHaveTheNamesThatTheyAreGiven(t *testing.T) {
	logging.NamePeers(func(id string) string {
		if id == "nobody" {
			return ""
		}
		return "p-" + id
	})
	defer logging.NamePeers(nil)
	var out bytes.Buffer
	log := logging.New(&out, "", "text", "test")
	log.Info("a", logging.Peer("alice"))
	log.Info("b", logging.Peer("nobody"))
	log.Info("c", logging.Addr("alice"))
	if s := out.String(); !strings.Contains(s, "peer=p-alice") || !strings.Contains(s, "peer=peer-") || !strings.Contains(s, "addr=addr-") || strings.Contains(s, "nobody") {
		t.Error(s)
	}
}

func FuzzScrub(f *testing.F) {
	f.Add("x 10.0.0.1:80 [::]:1 " + peer)
	f.Fuzz(func(t *testing.T, s string) {
		got := logging.Scrub(s + " 198.51.100.7:65000 ")
		if strings.Contains(got, "198.51.100.7") {
			t.Errorf("%q", got)
		}
		if net.ParseIP(s) != nil && !net.ParseIP(s).IsLoopback() && !net.ParseIP(s).IsUnspecified() && strings.Contains(logging.Scrub(s), s) {
			t.Errorf("%q is kept", s)
		}
	})
}

func BenchmarkLine(b *testing.B) {
	log := logging.New(discard{}, "info", "json", "test")
	for b.Loop() {
		log.Info("task accepted", "task_id", "0123456789abcdef0123456789abcdef", logging.Peer(peer), "took", "1.5ms")
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
