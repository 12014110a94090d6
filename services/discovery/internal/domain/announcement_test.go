package domain_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/discovery/internal/domain"
)

// announcement is a good one.
func announcement(id string, version uint64) domain.Announcement {
	return domain.Announcement{PeerID: id, Version: version, Role: domain.RoleProvider, SealingKey: "age1pq1" + strings.Repeat("q", 1950),
		Addresses: []string{"/ip4/192.0.2.7/tcp/4001"}, Interval: 15 * time.Second,
		Capabilities: []domain.Capability{{Type: "sum", Version: "1"}, {Type: "wasm", Version: "1", MaxLimits: domain.Limits{Time: time.Minute, Memory: 1 << 30},
			Attributes: map[string]string{"engine": "wasmtime"}}}}
}

func TestCheck(t *testing.T) {
	attributes := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint("k", i)] = "v"
		}
		return m
	}
	for _, c := range []struct {
		name   string
		change func(a *domain.Announcement)
		reason string
	}{
		{"good", func(*domain.Announcement) {}, ""},
		{"no capabilities", func(a *domain.Announcement) { a.Capabilities = nil }, ""},
		{"no addresses", func(a *domain.Announcement) { a.Addresses = nil }, ""},
		{"an onion address", func(a *domain.Announcement) { a.Addresses = []string{"/onion3/" + strings.Repeat("a", 56) + ":4001"} }, ""},
		{"last words", func(a *domain.Announcement) { a.Leaving, a.SealingKey, a.Capabilities = true, "", nil }, ""},
		{"an endless interval", func(a *domain.Announcement) { a.Interval = math.MaxInt64 }, ""}, // clamped
		{"no peer id", func(a *domain.Announcement) { a.PeerID = "" }, "PEER_ID_INVALID"},
		{"a peer id with a slash", func(a *domain.Announcement) { a.PeerID = "a/b" }, "PEER_ID_INVALID"},
		{"a long peer id", func(a *domain.Announcement) { a.PeerID = strings.Repeat("a", 129) }, "PEER_ID_INVALID"},
		{"version 0", func(a *domain.Announcement) { a.Version = 0 }, "VERSION_INVALID"},
		{"a consumer", func(a *domain.Announcement) { a.Role = "consumer" }, "ROLE_INVALID"},
		{"no interval", func(a *domain.Announcement) { a.Interval = 0 }, "INTERVAL_INVALID"},
		{"a negative interval", func(a *domain.Announcement) { a.Interval = -time.Second }, "INTERVAL_INVALID"},
		{"17 addresses", func(a *domain.Announcement) {
			a.Addresses = strings.Split(strings.Repeat(" /ip4/192.0.2.7/tcp/1", 17)[1:], " ")
		}, "ADDRESSES_TOO_MANY"},
		{"an address that is none", func(a *domain.Announcement) { a.Addresses = []string{"192.0.2.7:4001"} }, "ADDRESS_INVALID"},
		{"an address with an empty part", func(a *domain.Announcement) { a.Addresses = []string{"/ip4//tcp/1"} }, "ADDRESS_INVALID"},
		{"an address with a control character", func(a *domain.Announcement) { a.Addresses = []string{"/ip4/192.0.2.7\n/tcp/1"} }, "ADDRESS_INVALID"},
		{"an address through a relay's id", func(a *domain.Announcement) { a.Addresses = []string{"/ip4/192.0.2.7/tcp/1/p2p/QmX"} }, "ADDRESS_INVALID"},
		{"a long address", func(a *domain.Announcement) { a.Addresses = []string{"/dns4/" + strings.Repeat("a", 256)} }, "ADDRESS_INVALID"},
		{"no sealing key", func(a *domain.Announcement) { a.SealingKey = "" }, "SEALING_KEY_INVALID"},
		{"a secret key", func(a *domain.Announcement) { a.SealingKey = "AGE-SECRET-KEY-1" + strings.Repeat("Q", 58) }, "SEALING_KEY_INVALID"},
		{"a sealing key with a blank", func(a *domain.Announcement) { a.SealingKey = "age1 " + strings.Repeat("q", 58) }, "SEALING_KEY_INVALID"},
		{"an endless sealing key", func(a *domain.Announcement) { a.SealingKey = "age1" + strings.Repeat("q", 4096) }, "SEALING_KEY_INVALID"},
		{"a type with a blank", func(a *domain.Announcement) { a.Capabilities[0].Type = "a b" }, "CAPABILITY_INVALID"},
		{"a type without a name", func(a *domain.Announcement) { a.Capabilities[0].Type = "" }, "CAPABILITY_INVALID"},
		{"a type twice", func(a *domain.Announcement) { a.Capabilities[0].Type = "wasm" }, "CAPABILITY_REPEATED"},
		{"a version with markup is shown as text", func(a *domain.Announcement) { a.Capabilities[0].Version = "<b>" }, ""},
		{"a version with an escape", func(a *domain.Announcement) { a.Capabilities[0].Version = "\x1b[2J" }, "CAPABILITY_INVALID"},
		{"a negative limit", func(a *domain.Announcement) { a.Capabilities[0].MaxLimits.Time = -1 }, "CAPABILITY_INVALID"},
		{"17 attributes", func(a *domain.Announcement) { a.Capabilities[0].Attributes = attributes(17) }, "CAPABILITY_INVALID"},
		{"16 attributes", func(a *domain.Announcement) { a.Capabilities[0].Attributes = attributes(16) }, ""},
		{"an attribute that is no text", func(a *domain.Announcement) { a.Capabilities[0].Attributes = map[string]string{"k": "\xff"} }, "CAPABILITY_INVALID"},
		{"33 capabilities", func(a *domain.Announcement) {
			a.Capabilities = nil
			for i := range 33 {
				a.Capabilities = append(a.Capabilities, domain.Capability{Type: fmt.Sprint("t", i)})
			}
		}, "CAPABILITIES_TOO_MANY"},
	} {
		a := announcement("12D3KooWGood", 1)
		c.change(&a)
		var why *domain.Invalid
		switch err := a.Check(); {
		case c.reason == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.reason != "" && (!errors.As(err, &why) || why.Reason != c.reason):
			t.Errorf("%s: Check = %v, want reason %s", c.name, err, c.reason)
		}
	}
}

func TestClamped(t *testing.T) {
	for in, want := range map[time.Duration]time.Duration{1: time.Second, 15 * time.Second: 15 * time.Second, math.MaxInt64: domain.MaxInterval} {
		if got := (domain.Announcement{Interval: in}).Clamped().Interval; got != want {
			t.Errorf("an interval of %v is clamped to %v, want %v", in, got, want)
		}
	}
}

func TestJoinAddressShaped(t *testing.T) {
	for addr, want := range map[string]bool{
		"/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWGood": true, "/dns4/a.example/tcp/4001/p2p/12D3KooWGood": true,
		"/ip4/127.0.0.1/tcp/4001": false, "/p2p/12D3KooWGood": false, "/ip4/127.0.0.1/tcp/4001/p2p/": false, "": false,
		"/ip4/127.0.0.1/tcp/4001/p2p/a b": false, "127.0.0.1:4001/p2p/12D3KooWGood": false,
	} {
		if got := domain.JoinAddressShaped(addr); got != want {
			t.Errorf("JoinAddressShaped(%q) = %v", addr, got)
		}
	}
}
