package anonymous

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Bridge is one more relay of the network, which the network does not know of.
type Bridge struct {
	Line        string // as tor takes it
	Fingerprint string
}

// privateNetwork are the lines of a torrc that make a tor one of the network's.
func (n *Network) privateNetwork() (string, error) {
	text, err := os.ReadFile(filepath.Join(n.Home("provider-1"), "tor", "torrc"))
	if err != nil {
		return "", err
	}
	_, lines, ok := strings.Cut(string(text), "\nTestingTorNetwork 1\n")
	if !ok {
		return "", errors.New("a node's tor is not of a private network")
	}
	return "TestingTorNetwork 1\n" + lines, nil
}

// StartBridge starts a tor that is a bridge of the network until the test ends. It returns at once: the bridge knows the network some seconds later.
func (n *Network) StartBridge(t testing.TB) *Bridge {
	t.Helper()
	network, err := n.privateNetwork()
	if err != nil {
		t.Fatal(err)
	}
	return StartBridge(t, filepath.Join(n.cfg.Dir, "bridge"), network)
}

// StartBridge is the same for a private network of which only the lines are known that make a tor one of it. dir must not be there.
func StartBridge(t testing.TB, dir, network string) *Bridge {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if err := errors.Join(l.Close(), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	torrc := filepath.Join(dir, "torrc")
	text := fmt.Sprintf("%sNickname bridge\nDataDirectory %s\nAddress 127.0.0.1\nORPort %s\nBridgeRelay 1\nBridgeDistribution none\nPublishServerDescriptor 0\n"+
		"ExitRelay 0\nSocksPort 0\nNumCPUs 1\nLog notice file %s\n", network, filepath.Join(dir, "data"), at, filepath.Join(dir, "log"))
	if err := os.WriteFile(torrc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(torProgram(), "-f", torrc, "--defaults-torrc", "/dev/null")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			said, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("the bridge said:\n%s", said)
		}
	})
	var id string
	Eventually(t, 30*time.Second, "the bridge has its key", func() bool {
		said, _ := os.ReadFile(filepath.Join(dir, "data", "fingerprint"))
		f := strings.Fields(string(said))
		if len(f) == 2 {
			id = f[1]
		}
		return id != ""
	})
	return &Bridge{Line: at + " " + id, Fingerprint: id}
}

// UpBehind starts one more node, in the folder of that name, with a tor of its own that enters the network by a bridge, and joins through a node.
func (n *Network) UpBehind(t testing.TB, name string, b *Bridge, at string, args ...string) (stop func()) {
	t.Helper()
	network, err := n.privateNetwork()
	if err != nil {
		t.Fatal(err)
	}
	home := n.Home(name)
	if err := errors.Join(os.MkdirAll(home, 0o700), os.WriteFile(filepath.Join(home, added), []byte(network), 0o600)); err != nil {
		t.Fatal(err)
	}
	return n.up(t, name, at, append([]string{"--bridge", b.Line}, args...)...)
}
