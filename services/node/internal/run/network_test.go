package run

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/invite"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// An invite that node makes is one that the command takes: the network's key, and addresses of providers.
func TestInvite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider()
	c := w.consumer(p)
	c.knows(1)
	ctx := testContext(t)
	make := func(m *member, addresses ...string) (*nodev1.CreateInviteResponse, *fault.Error) {
		r, err := m.api.CreateInvite(ctx, &nodev1.CreateInviteRequest{Addresses: addresses})
		return r, fault.From(err)
	}
	if _, f := make(c); f == nil || f.Reason != "NETWORK_OPEN" {
		t.Errorf("in an open network: %v", f)
	}
	c.broker.SetPrivate(true) // in containers: the broker has the key
	if _, f := make(c); f == nil || f.Reason != "NETWORK_KEY_ELSEWHERE" || !strings.Contains(f.Message, "network invite --address") {
		t.Errorf("where the broker alone has the key: %v", f)
	}
	up := t.TempDir()
	home := filepath.Join(up, "consumer-1")
	key := invite.NewKey()
	for name, data := range map[string][]byte{filepath.Join(up, "dev.json"): []byte("{}"), filepath.Join(up, "network.key"): invite.KeyFile(key)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := networkKey(home) // of the network that it is in
	if err != nil || got != key {
		t.Fatalf("the key of the network: %v", err)
	}
	for _, m := range []*member{p, c} {
		m.node.key = func() ([invite.KeySize]byte, error) { return networkKey(home) }
		r, f := make(m)
		if f != nil {
			t.Fatal(f)
		}
		i, err := invite.Decode(r.GetInvite())
		if err != nil || i.Key != key || i.Anonymous || len(i.Addresses) != 1 || i.Addresses[0] != p.broker.JoinAddress() {
			t.Errorf("a %s invites with %+v, %v", m.role, i, err)
		}
	}
	if r, f := make(c, "/ip4/127.0.0.1/tcp/1/p2p/"+p.id()); f != nil || !r.GetLocal() {
		t.Errorf("with an address of this machine: %v, %v", r, f)
	}
	if _, f := make(c, "nowhere"); f == nil || f.Reason != "ADDRESS_INVALID" {
		t.Errorf("with no address: %v", f)
	}
	if err := os.WriteFile(filepath.Join(up, "network.key"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, f := make(c); f == nil || f.Reason != "NETWORK_KEY_BROKEN" || strings.Contains(f.Message, "rubbish") {
		t.Errorf("with a broken key: %v", f)
	}
}

// A node says what is wrong with itself, with what would mend it.
func TestDiagnose(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.consumer()
	verdicts := func() map[string]string {
		r, err := c.api.Diagnose(testContext(t), &nodev1.DiagnoseRequest{})
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, f := range r.GetFindings() {
			if out[f.GetCheck()] = f.GetVerdict(); (f.GetMend() == "") != (f.GetVerdict() == "ok") || f.GetDetail() == "" {
				t.Errorf("%v", f)
			}
		}
		return out
	}
	eventually(t, "all but the network is well", func() bool {
		v := verdicts()
		return v["process broker"] == "ok" && v["process task"] == "ok" && v["process node"] == "ok" && v["network"] == "problem"
	})
}
