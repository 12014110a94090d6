package domain

import (
	"strings"
	"testing"
	"time"
)

func TestAnnouncementCheck(t *testing.T) {
	good := announced(1, 1)
	good.Addresses = []string{"/ip4/127.0.0.1/tcp/1"}
	good.Capabilities = []Capability{{Type: "wasm", Version: "1", Attributes: map[string]string{"engine": "wasmtime"}}, {Type: "sum"}}
	if err := good.Check(good.PeerID); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Announcement){
		"peer id":          func(a *Announcement) { a.PeerID = "me" },
		"version":          func(a *Announcement) { a.Version = 0 },
		"role":             func(a *Announcement) { a.Role = "consumer" },
		"no key":           func(a *Announcement) { a.SealingKey = "" },
		"long key":         func(a *Announcement) { a.SealingKey = strings.Repeat("x", 5000) },
		"unprintable key":  func(a *Announcement) { a.SealingKey = "age1\x00" },
		"interval":         func(a *Announcement) { a.Interval = -1 },
		"many addresses":   func(a *Announcement) { a.Addresses = make([]string, 17) },
		"bad address":      func(a *Announcement) { a.Addresses = []string{"127.0.0.1:1"} },
		"empty address":    func(a *Announcement) { a.Addresses = []string{""} },
		"long address":     func(a *Announcement) { a.Addresses = []string{"/" + strings.Repeat("x", 300)} },
		"many types":       func(a *Announcement) { a.Capabilities = make([]Capability, 65) },
		"twice":            func(a *Announcement) { a.Capabilities = []Capability{{Type: "sum"}, {Type: "sum"}} },
		"markup":           func(a *Announcement) { a.Capabilities = []Capability{{Type: "<b>"}} },
		"unprintable":      func(a *Announcement) { a.Capabilities = []Capability{{Type: "sum", Version: "\x1b[31m"}} },
		"attributes":       func(a *Announcement) { a.Capabilities[0].Attributes = map[string]string{"x": strings.Repeat("y", 300)} },
		"negative limit":   func(a *Announcement) { a.Capabilities = []Capability{{Type: "sum", Max: Limits{Time: -time.Second}}} },
		"broken utf-8 key": func(a *Announcement) { a.SealingKey = "age1\xff" },
	} {
		a := good
		a.Capabilities = append([]Capability(nil), good.Capabilities...)
		change(&a)
		if a.Check(a.PeerID) == nil {
			t.Errorf("%s: it is accepted", name)
		}
	}
	if good.Check(peerID(2)) == nil {
		t.Error("another's signature is accepted")
	}
	last := Announcement{PeerID: good.PeerID, Version: 2, Role: RoleProvider, Interval: time.Second, Leaving: true}
	if err := last.Check(last.PeerID); err != nil {
		t.Errorf("last words: %v", err)
	}
	last.Interval = 1000 * time.Hour
	if last.Clamp(); last.Interval != MaxInterval {
		t.Errorf("the interval is %v", last.Interval)
	}
}

func TestIDs(t *testing.T) {
	if !ValidTaskID("0123456789abcdef0123456789abcdef") || ValidTaskID("0123456789ABCDEF0123456789abcdef") || ValidTaskID("01") {
		t.Error("task ids")
	}
	id := "12D3KooWGPRKSYkQtsAcnwUkCujXPGrYnyTxyWFzXxrsRvAMhKCf"
	if !ValidPeerID(id) || ValidPeerID(id[:10]) || ValidPeerID(strings.Repeat("0", 52)) {
		t.Error("peer ids")
	}
	for address, want := range map[string]string{"/ip4/1.2.3.4/tcp/1/p2p/" + id: id, "/p2p/" + id: "", "/ip4/1.2.3.4/tcp/1": "", "/ip4/1.2.3.4/tcp/1/p2p/x": "",
		"/ip4/1.2.3.4/tcp/1/p2p/" + id + "/p2p-circuit": ""} {
		if got := AddressPeer(address); got != want {
			t.Errorf("%s is of %q", address, got)
		}
	}
	if ShortPeer(id) != "…RvAMhKCf" || ShortPeer("short") != "short" {
		t.Error("short ids")
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{First: time.Second, Max: 10 * time.Second}
	mid := func() float64 { return 0.5 }
	for n, want := range []time.Duration{0: time.Second, 1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 100: 10 * time.Second} {
		if want > 0 && b.After(n, mid) != want {
			t.Errorf("after %d failures %v", n, b.After(n, mid))
		}
	}
	for range 1000 {
		if d := Jitter(time.Second, nil); d < 750*time.Millisecond || d > 1250*time.Millisecond {
			t.Fatalf("jitter gives %v", d)
		}
	}
}
