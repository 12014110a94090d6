package command

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shallot-net/shallot/cli/internal/clitest"
	"github.com/shallot-net/shallot/kit/fence"
)

func TestModeFlagsThatDoNotGoTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const onion = "/onion3/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:4001/p2p/x"
	file := w.file("file", "")
	for want, args := range map[string][]string{
		"--bridge is for anonymous mode: give --anonymous":                   {"up", "--bridge", "192.0.2.7:443"},
		"--unfenced is for anonymous mode":                                   {"dev", "--unfenced"},
		"--tor is for anonymous mode":                                        {"dev", "--tor", "public"},
		"it must be private or public":                                       {"dev", "--anonymous", "--tor", "mine"},
		"--tor-relays is for anonymous mode":                                 {"dev", "--tor-relays", "5"},
		"--tor-relays is for a private Tor network":                          {"dev", "--anonymous", "--tor", "public", "--tor-relays", "5"},
		"--tor-relays 2: give 3 to 29":                                       {"dev", "--anonymous", "--tor-relays", "2"},
		"--tor-socks is for anonymous mode":                                  {"up", "--tor-socks", "unix:/s"},
		"leave --listen out":                                                 {"up", "--anonymous", "--listen", "/ip4/0.0.0.0/tcp/1"},
		"is no onion address":                                                {"up", "--anonymous", "--bootstrap", "/ip4/192.0.2.1/tcp/1/p2p/x"},
		"is the address of an anonymous node: give --anonymous":              {"up", "--bootstrap", onion},
		"give both --tor-control unix:PATH and --tor-socks unix:PATH":        {"up", "--anonymous", "--tor-control", "unix:/c"},
		"is not unix:/path":                                                  {"up", "--anonymous", "--tor-control", "127.0.0.1:9051", "--tor-socks", "unix:/s"},
		"is there and is no socket":                                          {"up", "--anonymous", "--tor-control", "unix:" + file, "--tor-socks", "unix:/s"},
		"are for a tor that shallot starts":                                  {"up", "--anonymous", "--tor-control", "unix:/c", "--tor-socks", "unix:/s", "--bridge", "192.0.2.7:443"},
		"an anonymous node has no network to reach it by: have the executor": {"up", "--anonymous", "--role", "provider", "--executor", "grep=127.0.0.1:1"},
		"this is no pluggable transport":                                     {"up", "--anonymous", "--pluggable-transport", "obfs4"},
	} {
		r := w.bare(append([]string{"--home", filepath.Join(t.TempDir(), "home")}, args...)...)
		if r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, want) {
			t.Errorf("%q: exit code %d, %q; want %q", args, r.code, r.stderr, want)
		}
	}
}

func TestAnonymousNodeAsAUserSeesIt(t *testing.T) {
	t.Parallel()
	bin, dir := clitest.Install(t), filepath.Join(t.TempDir(), "home")
	flags := []string{"--home", dir, "up", "--anonymous", "--role", "provider"}
	wantFence := "enclosed"
	if _, err := fence.Available(t.Context()); err != nil {
		refused := startProgram(t, bin, nil, flags...)
		if code := refused.code(t); code != exitState || !strings.Contains(refused.stderr.String(), "--unfenced") {
			t.Errorf("where there can be no fence: exit code %d, %s", code, &refused.stderr)
		}
		flags, wantFence = append(flags, "--unfenced"), "none"
	}
	up := startProgram(t, bin, nil, append(flags, "--executor", "grep=unix:/run/grep")...)
	up.awaitLine(t, "ready")
	for _, want := range []string{"tor: " + filepath.Join(bin, "tor") + ", version 0.4.9.11", "provider: tor is at 45 % (Asking for relay descriptors)", "provider: tor is at 100 % (Done)"} {
		if !strings.Contains(up.stderr.String(), want) {
			t.Errorf("%q is not in\n%s", want, &up.stderr)
		}
	}
	all := strings.Join(processesUnder(t, dir), "\n")
	for _, want := range []string{"--mode anonymous --onion.socks unix:" + filepath.Join(dir, "run", "tor-socks.sock") + " --onion.service=true", "--provider.executors grep=unix:/run/grep", "shallot-onion --home", "/tor -f " + filepath.Join(dir, "tor", "torrc")} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not on a command line of\n%s", want, all)
		}
	}
	node := startProgram(t, bin, nil, "--home", dir, "node")
	if code := node.code(t); code != 0 {
		t.Errorf("node: exit code %d, %s", code, &node.stderr)
	}
	for _, want := range []string{"mode:        anonymous\n", "fence:       " + wantFence + "\n", "tor:         online\n", "alias:       alias-of-peer-home\n"} {
		if !strings.Contains(node.stdout.String(), want) {
			t.Errorf("%q is not in\n%s", want, &node.stdout)
		}
	}
	shown := startProgram(t, bin, nil, "--home", dir, "node", "--show-addresses")
	if code := shown.code(t); code != 0 || !strings.Contains(shown.stdout.String(), "/onion3/") || !strings.Contains(shown.stdout.String(), "peer id:     peer-home\n") {
		t.Errorf("with addresses: exit code %d, %s", code, &shown.stdout)
	}
	for _, said := range []string{node.stdout.String(), up.stdout.String(), up.stderr.String()} {
		for _, secret := range []string{"/onion3/", "peer id", strings.Repeat("a", 56)} {
			if strings.Contains(said, secret) {
				t.Errorf("%q is in\n%s", secret, said)
			}
		}
	}
	if !strings.Contains(up.stdout.String(), "alias-of-peer-home") || !strings.Contains(up.stderr.String(), "others join through its onion address: shallot --home "+dir+" node --show-addresses") {
		t.Errorf("it said\n%s\n%s", &up.stdout, &up.stderr)
	}
	// All of it ends with its supervisor, also what is behind the fence.
	if err := up.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	up.code(t)
	up.await(t, "no process is left", func() bool { return len(processesUnder(t, dir)) == 0 })
	open := startProgram(t, bin, nil, "--home", dir, "up")
	if code := open.code(t); code != exitState || !strings.Contains(open.stderr.String(), "give --anonymous") {
		t.Errorf("in open mode: exit code %d, %s", code, &open.stderr)
	}
	down := startProgram(t, bin, nil, "--home", dir, "peers")
	if code := down.code(t); code != exitNoNode || !strings.Contains(down.stderr.String(), "shallot up --anonymous --home "+dir) {
		t.Errorf("when it does not run: exit code %d, %s", code, &down.stderr)
	}
	again := startProgram(t, bin, nil, flags...)
	again.awaitLine(t, "ready")
	if err := again.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := again.code(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestAnonymousDevIsFoundWithoutAHome(t *testing.T) {
	t.Parallel()
	bin, data := clitest.Install(t), t.TempDir()
	env := []string{"XDG_DATA_HOME=" + data}
	dev := startProgram(t, bin, env, "dev", "--anonymous", "--tor", "public", "--unfenced", "--providers", "1")
	dev.awaitLine(t, "ready")
	if !strings.Contains(dev.stderr.String(), "the public Tor network is used") {
		t.Errorf("it said\n%s", &dev.stderr)
	}
	sum := startProgram(t, bin, env, "run", "sum", "1", "2")
	if code := sum.code(t); code != 0 || !strings.Contains(sum.stderr.String(), "using consumer-1 in "+filepath.Join(data, "shallot-dev-anonymous")) {
		t.Errorf("run: exit code %d, %s", code, &sum.stderr)
	}
	if err := dev.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := dev.code(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	open := startProgram(t, bin, env, "dev", "--home", filepath.Join(data, "shallot-dev-anonymous"))
	if code := open.code(t); code != exitState || !strings.Contains(open.stderr.String(), "give --anonymous") {
		t.Errorf("the directory in open mode: exit code %d, %s", code, &open.stderr)
	}
}
