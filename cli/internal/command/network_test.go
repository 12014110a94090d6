package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/invite"
	discoveryv1 "github.com/shallot-net/shallot/proto/shallot/discovery/v1"
)

const someProvider = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

func TestNetworkFromCreationToJoining(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Peers = func() []*discoveryv1.Peer {
		return []*discoveryv1.Peer{{PeerId: someProvider, State: "available", Addresses: []string{"/ip4/127.0.0.1/tcp/4001", "/ip4/192.0.2.7/tcp/4001"}}}
	}
	r := w.run("network", "invite")
	r.want(t, exitState, "", "no private network")
	w.run("network", "create").want(t, exitState, "", "stop it first")

	// Made while nothing runs on it; the node's home of this test is served already.
	made := t.TempDir()
	w.bare("--home", made, "network", "create").want(t, exitOK, made+"\n", "shallot up")
	w.bare("--home", made, "network", "create").want(t, exitState, "", "already")
	key, err := os.ReadFile(filepath.Join(made, "network.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.home, "network.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	r = w.run("network", "invite")
	if i, err := invite.Decode(r.stdout); err != nil || strings.Join(i.Addresses, " ") != "/ip4/192.0.2.7/tcp/4001/p2p/"+someProvider || string(invite.KeyFile(i.Key)) != string(key) || strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("the invite is %q with %v, %v (stderr %q)", r.stdout, i.Addresses, err, r.stderr)
	}
	if v := w.run("network", "invite", "--output", "json").json(t); v["invite"] != strings.TrimSpace(r.stdout) {
		t.Errorf("as JSON it is %v", v)
	}

	joined := filepath.Join(t.TempDir(), "new")
	w.stdin = strings.NewReader(r.stdout)
	w.bare("--home", joined, "network", "join").want(t, exitOK, joined+"\n", "shallot up")
	for name, want := range map[string]string{"network.key": string(key), "network.bootstrap": "/ip4/192.0.2.7/tcp/4001/p2p/" + someProvider + "\n"} {
		path := filepath.Join(joined, name)
		b, err := os.ReadFile(path)
		info, serr := os.Stat(path)
		if err != nil || serr != nil || string(b) != want || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has %q, %v, mode %v", name, b, err, info.Mode())
		}
	}
	// Again is no harm; another network is.
	w.bare("--home", joined, "network", "join", strings.TrimSpace(r.stdout)).want(t, exitOK, joined+"\n", "")
	other, err := invite.Invite{Key: invite.NewKey(), Addresses: []string{"/ip4/192.0.2.1/tcp/1/p2p/x"}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	w.bare("--home", joined, "network", "join", other).want(t, exitState, "", "another private network")
	if b, err := os.ReadFile(filepath.Join(joined, "network.key")); err != nil || string(b) != string(key) {
		t.Errorf("after a refusal the key is %q, %v", b, err)
	}
}

const someOnion = "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:4001"

// An anonymous network says of itself that it is one at every step, and nothing of it gets into the open.
func TestAnonymousNetworkFromCreationToJoining(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Peers = func() []*discoveryv1.Peer {
		return []*discoveryv1.Peer{{PeerId: someProvider, State: "available", Addresses: []string{someOnion}}}
	}
	made := t.TempDir()
	w.bare("--home", made, "network", "create", "--anonymous").want(t, exitOK, made+"\n", "shallot up --anonymous --role provider")
	w.bare("--home", made, "up").want(t, exitState, "", "give --anonymous")
	for _, name := range []string{"network.key", "network.mode"} {
		b, err := os.ReadFile(filepath.Join(made, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(w.home, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r := w.run("network", "invite")
	if i, err := invite.Decode(r.stdout); err != nil || !i.Anonymous || strings.Join(i.Addresses, " ") != someOnion+"/p2p/"+someProvider {
		t.Errorf("the invite is %q with %v, %v (stderr %q)", r.stdout, i.Addresses, err, r.stderr)
	}
	if v := w.run("network", "invite", "--output", "json").json(t); v["mode"] != "anonymous" {
		t.Errorf("as JSON it is %v", v)
	}
	w.run("network", "invite", "--address", "/ip4/192.0.2.7/tcp/1/p2p/"+someProvider).want(t, exitUsage, "", "no onion address")

	joined := filepath.Join(t.TempDir(), "new")
	if v := w.bare("--home", joined, "network", "join", "--anonymous", "--output", "json", strings.TrimSpace(r.stdout)).json(t); v["mode"] != "anonymous" {
		t.Errorf("as JSON it is %v", v)
	}
	w.bare("--home", joined, "network", "join", strings.TrimSpace(r.stdout)).want(t, exitOK, joined+"\n", "shallot up --anonymous")
	w.bare("--home", joined, "up", "--role", "provider").want(t, exitState, "", "give --anonymous")

	open, err := invite.Invite{Key: invite.NewKey(), Addresses: []string{"/ip4/192.0.2.1/tcp/1/p2p/x"}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	w.bare("--home", other, "network", "join", "--anonymous", open).want(t, exitUsage, "", "leave --anonymous out")
	w.bare("--home", other, "network", "join", open).want(t, exitOK, other+"\n", "shallot up'")
	w.bare("--home", other, "up", "--anonymous").want(t, exitState, "", "network create --anonymous")
	// A home of the other mode is not made one of the network.
	used := t.TempDir()
	if err := os.MkdirAll(filepath.Join(used, "state", "broker"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(used, "state", "broker", "mode"), []byte("open\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.bare("--home", used, "network", "join", strings.TrimSpace(r.stdout)).want(t, exitState, "", "take another --home")
	if left, err := filepath.Glob(filepath.Join(used, "network.*")); err != nil || len(left) > 0 {
		t.Errorf("a refusal has left %v, %v", left, err)
	}
}

func TestInvitesThatAreNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	home := filepath.Join(t.TempDir(), "new")
	good, err := invite.Invite{Key: invite.NewKey(), Addresses: []string{"/ip4/192.0.2.1/tcp/1/p2p/x"}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		good[:len(good)-1]: "damaged", good[1:]: "not an invite", "shallot7" + good[8:]: "version 7", "/ip4/1.2.3.4/tcp/1/p2p/x": "not an invite",
	} {
		r := w.bare("--home", home, "network", "join", text)
		r.want(t, exitUsage, "", want)
		if strings.Contains(r.stderr, good[9:40]) {
			t.Errorf("the key is in %q", r.stderr)
		}
	}
	if _, err := os.Stat(home); err == nil {
		t.Error("a home was made for an invite that is none")
	}
	w.run("network", "invite", "--address", "192.0.2.1:4001").want(t, exitState, "", "no private network")
}
