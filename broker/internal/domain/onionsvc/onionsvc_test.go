package onionsvc_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"github.com/cretz/bine/torutil"
	bine "github.com/cretz/bine/torutil/ed25519"

	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
)

const clientKey = "AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPQ"

func valid() onionsvc.Request {
	return onionsvc.Request{Seed: bytes.Repeat([]byte{7}, 32), Socket: "/run/shallot-0/a_b@c+d~e.sock", Port: 4001}
}

// What another implementation says is right, too.
func TestID(t *testing.T) {
	for i := range 50 {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, 32))
		id := onionsvc.ID(key.Public().(ed25519.PublicKey))
		if want := torutil.OnionServiceIDFromPrivateKey(bine.FromCryptoPrivateKey(key)); id != want {
			t.Errorf("%s is not %s", id, want)
		}
		if err := onionsvc.CheckID(id); err != nil {
			t.Error(err)
		}
		other := strings.Replace(id, id[:1], map[bool]string{true: "b", false: "a"}[id[0] == 'a'], 1)
		for _, bad := range []string{other, strings.ToUpper(id), id + ".onion", id[1:], "", id[:55] + "8"} {
			if onionsvc.CheckID(bad) == nil {
				t.Errorf("%q passes", bad)
			}
		}
	}
}

func TestNew(t *testing.T) {
	for reason, changes := range map[string][]func(r *onionsvc.Request){
		"KEY_INVALID": {func(r *onionsvc.Request) { r.Seed = nil }, func(r *onionsvc.Request) { r.Seed = make([]byte, 64) }},
		"SOCKET_INVALID": {func(r *onionsvc.Request) { r.Socket = "" }, func(r *onionsvc.Request) { r.Socket = "run/a" }, func(r *onionsvc.Request) { r.Socket = "/a b" },
			func(r *onionsvc.Request) { r.Socket = "/a\r\nSIGNAL HALT" }, func(r *onionsvc.Request) { r.Socket = "/ü" }, func(r *onionsvc.Request) { r.Socket = `/a"b` },
			func(r *onionsvc.Request) { r.Socket = "/" + strings.Repeat("a", 107) }},
		"PORT_INVALID":        {func(r *onionsvc.Request) { r.Port = 0 }, func(r *onionsvc.Request) { r.Port = 65536 }},
		"MAX_STREAMS_INVALID": {func(r *onionsvc.Request) { r.MaxStreams = 65536 }},
		"CLIENT_KEY_INVALID": {func(r *onionsvc.Request) { r.ClientKeys = []string{clientKey, clientKey[1:]} }, func(r *onionsvc.Request) { r.ClientKeys = []string{clientKey + "===="} },
			func(r *onionsvc.Request) { r.ClientKeys = []string{clientKey[:51] + "\n"} }, func(r *onionsvc.Request) { r.ClientKeys = make([]string, 257) }},
	} {
		for i, change := range changes {
			r := valid()
			change(&r)
			_, err := onionsvc.New(r)
			var bad *onionsvc.Invalid
			if !errors.As(err, &bad) || bad.Reason != reason {
				t.Errorf("%s %d: %v", reason, i, err)
			}
		}
	}
	if _, err := onionsvc.New(valid()); err != nil {
		t.Error(err)
	}
	if onionsvc.CheckClientKey(make([]byte, 32)) == nil || onionsvc.CheckClientKey(make([]byte, 31)) == nil || onionsvc.CheckClientKey(bytes.Repeat([]byte{1}, 32)) != nil {
		t.Error("client keys")
	}
}

func TestDigest(t *testing.T) {
	r := valid()
	other := "BAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPQ"
	r.ClientKeys = []string{clientKey, other}
	first, _ := onionsvc.New(r)
	r.ClientKeys = []string{strings.ToLower(other), clientKey, other}
	if again, _ := onionsvc.New(r); again.Digest() != first.Digest() {
		t.Error("the order of clients makes another request")
	}
	seen := map[string]bool{first.Digest(): true}
	for _, change := range []func(r *onionsvc.Request){
		func(r *onionsvc.Request) { r.Socket = "/b" }, func(r *onionsvc.Request) { r.Port++ }, func(r *onionsvc.Request) { r.MaxStreams = 1 },
		func(r *onionsvc.Request) { r.Work = true }, func(r *onionsvc.Request) { r.ClientKeys = nil }, func(r *onionsvc.Request) { r.ClientKeys = r.ClientKeys[:1] },
	} {
		r := r
		change(&r)
		s, err := onionsvc.New(r)
		if err != nil || seen[s.Digest()] {
			t.Errorf("%v: not told apart", err)
		}
		seen[s.Digest()] = true
	}
}

func TestNewEnough(t *testing.T) {
	for version, want := range map[string]bool{"0.4.7": true, "0.4.7.1-alpha": true, "0.4.9.11": true, "0.4.8.10-dev (git-x)": true, "0.5.0.1": true, "1.0.0": true, "0.4.10-rc": true,
		"0.4.6.12": false, "0.3.5.8": false, "": false, "unknown": false, "0.4": false, "0.4.x": false, "-1.4.7": false, "0.4.99999999": false} {
		if got := onionsvc.NewEnough(version); got != want {
			t.Errorf("%q: %t", version, got)
		}
	}
}

func TestDetail(t *testing.T) {
	online := onionsvc.Network{Progress: 100, Tag: "done", Live: true, Circuits: true, Directory: true}
	if !online.Online() || online.Detail() != "" {
		t.Error(online.Detail())
	}
	for want, change := range map[string]func(n *onionsvc.Network){
		"loading descriptions of relays":               func(n *onionsvc.Network) { n.Progress, n.Tag = 60, "loading_descriptors" },
		"tor is starting; it does not work: for a":     func(n *onionsvc.Network) { n.Progress, n.Tag, n.Reason = 60, "192.0.2.1", "192.0.2.1" },
		"nothing is heard from the network":            func(n *onionsvc.Network) { n.Live = false },
		"no circuit can be made; it does not work: to": func(n *onionsvc.Network) { n.Circuits, n.Reason = false, "DORMANT" },
		"too few relays are known":                     func(n *onionsvc.Network) { n.Directory = false },
	} {
		n := online
		change(&n)
		if n.Online() || !strings.HasPrefix(n.Detail(), want) {
			t.Errorf("%q is not %q", n.Detail(), want)
		}
	}
}

func FuzzCheckID(f *testing.F) {
	f.Add(strings.Repeat("a", 56))
	f.Add("5yy7qpeiu4jbtjx47g7obwu3yitcaweplik2mfcvknie36letzom76ad")
	f.Fuzz(func(t *testing.T, s string) {
		if onionsvc.CheckID(s) == nil && (len(s) != 56 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") != "") {
			t.Errorf("%q passes", s)
		}
		_ = onionsvc.NewEnough(s)
	})
}
