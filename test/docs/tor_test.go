package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/tor"
	"github.com/shallot-net/shallot/test/internal/anonymous"
	"github.com/shallot-net/shallot/test/internal/dev"
)

// TestHowTosOverTor runs pages whose nodes are to be of the public Tor network. Here they are of one on this machine: there lies a tor beside the programs, which is found first.
func TestHowTosOverTor(t *testing.T) {
	anonymous.Need(t, "tor")
	t.Parallel()
	n := startTor(t)
	t.Run("join-a-network.md", func(t *testing.T) { newReader(t).after(t, "how-to/join-a-network.md", n.build) })
	t.Run("behind-a-censor.md", func(t *testing.T) {
		r := newReader(t)
		address, bridge := n.friend(t, r.world), anonymous.StartBridge(t, filepath.Join(n.dir, "bridge"), string(n.client))
		r.after(t, "how-to/behind-a-censor.md", func(sources string) error {
			return errors.Join(n.build(sources), os.WriteFile(filepath.Join(sources, "bridge.txt"), []byte(bridge.Line+"\n"), 0o600),
				os.WriteFile(filepath.Join(sources, "address.txt"), []byte(address+"\n"), 0o600))
		})
	})
}

type torNetwork struct {
	dir, bin string
	program  tor.Program
	client   []byte // the lines that make a tor one of the network's
}

func startTor(t *testing.T) *torNetwork {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	program, err := tor.Find("")
	if err != nil {
		t.Fatal(err)
	}
	n := &torNetwork{dir: t.TempDir(), bin: bin, program: program}
	begin := time.Now()
	p, err := tor.StartPrivate(t.Context(), tor.PrivateConfig{Dir: filepath.Join(n.dir, "net"), Program: program})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Ready(ctx, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("the private Tor network was ready after %v", time.Since(begin).Round(time.Second))
	n.client = p.Client(n.dir, n.dir).Test.Torrc()
	return n
}

// build makes the folder of programs, with a tor that is of the network whatever its configuration says.
func (n *torNetwork) build(sources string) error {
	bin := filepath.Join(sources, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(n.bin)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(n.bin, e.Name()), filepath.Join(bin, e.Name())
		if e.Name() != "shallot" {
			err = errors.Join(err, os.Symlink(from, to))
			continue
		}
		// It looks beside itself for the others, and follows a link before.
		text, failed := os.ReadFile(from)
		err = errors.Join(err, failed, os.WriteFile(to, text, 0o700)) //nolint:gosec // it is a program
	}
	lines := filepath.Join(bin, "torrc-of-the-network")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != -f ] || grep -q ^TestingTorNetwork \"$2\" || cat %s >>\"$2\"\nexec %s \"$@\"\n", lines, n.program.Path)
	return errors.Join(err, os.WriteFile(lines, n.client, 0o600), os.WriteFile(filepath.Join(bin, "tor"), []byte(script), 0o700)) //nolint:gosec // it is a program
}

// friend is a provider of somebody else's, and its address, which it prints.
func (n *torNetwork) friend(t *testing.T, world string) string {
	t.Helper()
	sources := filepath.Join(world, "s")
	if err := errors.Join(os.Mkdir(sources, 0o700), n.build(sources)); err != nil {
		t.Fatal(err)
	}
	shallot, at := filepath.Join(sources, "bin", "shallot"), filepath.Join(world, "f")
	up := exec.Command(shallot, "--home", at, "up", "--anonymous", "--role", "provider")
	said := &bytes.Buffer{}
	up.Stderr = said
	up.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = up.Process.Signal(os.Interrupt)
		_ = up.Wait()
		if t.Failed() {
			t.Logf("the friend's node said:\n%s", said)
		}
	})
	address := ""
	anonymous.Eventually(t, patience, "the friend's node has its address", func() bool {
		out, _ := exec.CommandContext(t.Context(), shallot, "--home", at, "node", "--show-addresses").Output()
		for f := range strings.FieldsSeq(string(out)) {
			if strings.HasPrefix(f, "/onion3/") {
				address = f
			}
		}
		return address != ""
	})
	return address
}
