package invite_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/invite"
)

const address = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

func line(t testing.TB) (invite.Invite, string) {
	t.Helper()
	i := invite.Invite{Key: invite.NewKey(), Addresses: []string{address, "/dns4/example.org/tcp/1/p2p/Qm1"}}
	s, err := i.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return i, s
}

func TestRoundTrip(t *testing.T) {
	want, s := line(t)
	if strings.ContainsAny(s, " \n") || !strings.HasPrefix(s, "shallot1-") {
		t.Errorf("the line is %q", s)
	}
	wrapped := "  " + s[:70] + "\r\n  " + s[70:] + "\n"
	for _, text := range []string{s, wrapped} {
		if got, err := invite.Decode(text); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, %v", got, err)
		}
	}
	if other := invite.NewKey(); other == want.Key {
		t.Error("two networks have one key")
	}
	if k, err := invite.ParseKeyFile(invite.KeyFile(want.Key)); err != nil || k != want.Key {
		t.Errorf("the key file: %v, %v", k, err)
	}
	if _, err := invite.ParseKeyFile(invite.KeyFile(want.Key)[:60]); err == nil {
		t.Error("a torn key file is read")
	}
}

const onion = "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

// The line says whether the network is anonymous, and what is of the other mode does not get into it, nor out of it.
func TestTheModeIsInIt(t *testing.T) {
	want := invite.Invite{Key: invite.NewKey(), Addresses: []string{onion}, Anonymous: true}
	s, err := want.Encode()
	if err != nil || !strings.HasPrefix(s, "shallot2-") {
		t.Fatalf("%q, %v", s, err)
	}
	if got, err := invite.Decode(s); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := invite.Decode("shallot1-" + s[9:]); fault.From(err).Reason != "INVITE_DAMAGED" {
		t.Errorf("an invite whose mode was changed: %v", err)
	}
	for mode, a := range map[bool]string{false: onion, true: address} {
		i := invite.Invite{Addresses: []string{a}, Anonymous: mode}
		if _, err := i.Encode(); err == nil || fault.From(err).Reason != "ADDRESS_INVALID" {
			t.Errorf("%s in an invite that is anonymous: %v: %v", a, mode, err)
		}
	}
	payload := append(make([]byte, 32), 0, byte(len(address)))
	payload = append(payload, address...)
	sum := sha256.Sum256(append([]byte("shallot2"), payload...))
	if _, err := invite.Decode("shallot2-" + base64.RawURLEncoding.EncodeToString(append(payload, sum[:6]...))); err == nil || !strings.Contains(err.Error(), "no onion address") {
		t.Errorf("an anonymous invite with an IP address: %v", err)
	}
}

// Whatever happens to one character, or to the end, is noticed and said.
func TestDamageIsNoticed(t *testing.T) {
	_, s := line(t)
	for i := range s {
		for _, text := range []string{s[:i], s[:i] + "x" + s[i+1:], s[:i] + s[i+1:], s[:i] + "*" + s[i+1:]} {
			if text == s {
				continue
			}
			_, err := invite.Decode(text)
			f := fault.From(err)
			if f == nil || f.Reason != "INVITE_DAMAGED" && f.Reason != "INVITE_INVALID" && f.Reason != "INVITE_VERSION" {
				t.Fatalf("%q: %v", text, err)
			}
			if key := s[9:40]; strings.Contains(err.Error(), key) {
				t.Fatalf("the error has the key in it: %v", err)
			}
		}
	}
}

func TestWhatIsNoInvite(t *testing.T) {
	raw := func(b []byte) string { return "shallot1-" + base64.RawURLEncoding.EncodeToString(b) }
	for text, reason := range map[string]string{
		"":                         "INVITE_INVALID",
		address:                    "INVITE_INVALID",
		"shallot-abc":              "INVITE_INVALID",
		"shallot3-AAAA":            "INVITE_VERSION",
		"shallot2-AAAA":            "INVITE_DAMAGED",
		"shallot1-":                "INVITE_DAMAGED",
		raw(make([]byte, 99)):      "INVITE_DAMAGED",
		strings.Repeat("a", 1<<20): "INVITE_DAMAGED",
	} {
		_, err := invite.Decode(text)
		if f := fault.From(err); f == nil || f.Reason != reason {
			t.Errorf("%.40q: got %v, want %s", text, err, reason)
		}
	}
	for _, addresses := range [][]string{nil, make([]string, 17), {"192.0.2.1:4001"}, {"/ip4/1.2.3.4/tcp/1"}, {"/a/p2p/x,/b/p2p/y"}, {"/a/p2p/x\n--mode"}, {"/" + strings.Repeat("a", 300) + "/p2p/x"}} {
		if _, err := (invite.Invite{Addresses: addresses}).Encode(); err == nil {
			t.Errorf("an invite with %.60q is made", addresses)
		}
	}
}

// Whatever decodes is within bounds, and is the line that it would be made into.
func FuzzDecode(f *testing.F) {
	_, s := line(f)
	f.Add(s)
	f.Add("shallot1-AAAA")
	f.Add("shallot9-")
	if s, err := (invite.Invite{Addresses: []string{onion}, Anonymous: true}).Encode(); err == nil {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		i, err := invite.Decode(text)
		if err != nil {
			if fault.From(err).Reason == "" {
				t.Errorf("an error without a reason: %v", err)
			}
			return
		}
		again, err := i.Encode()
		if err != nil || again != strings.Join(strings.Fields(text), "") {
			t.Errorf("%q decodes, and is made into %q, %v", text, again, err)
		}
	})
}
