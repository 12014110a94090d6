package tor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// Ports are below those that the kernel hands out for outgoing connections, so that a network gets its own back when it starts again.
const (
	firstPort = 20000
	lastPort  = 32000
	portTries = 200
	portsFile = "ports.json"
	maxPorts  = 64 << 10 // bytes of that file
)

// pickPorts gives every tor its ports: those of before where they are free, else others. They are written down, since clients of before know them.
func (p *Private) pickPorts() error {
	path := filepath.Join(p.cfg.Dir, portsFile)
	before, err := readPorts(path)
	if err != nil {
		return err
	}
	taken := map[int]bool{}
	ports := map[string][2]int{}
	for _, n := range p.nodes {
		if n.orPort, err = pickPort(before[n.name][0], taken); err != nil {
			return err
		}
		if n.authority {
			if n.dirPort, err = pickPort(before[n.name][1], taken); err != nil {
				return err
			}
		}
		ports[n.name] = [2]int{n.orPort, n.dirPort}
	}
	data, err := json.Marshal(ports)
	if err != nil {
		return err
	}
	if err := home.WriteFile(path, data, 0o600); err != nil {
		return fault.FailedPrecondition(ReasonConfig, "cannot write %s: is the disk full?", path).Because(err)
	}
	return nil
}

func readPorts(path string) (map[string][2]int, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ports map[string][2]int
	if err == nil && len(data) <= maxPorts {
		err = json.Unmarshal(data, &ports)
	}
	if err != nil || len(data) > maxPorts {
		return nil, fault.FailedPrecondition(ReasonPrivateBroken, "%s is damaged: remove it", path).Because(err)
	}
	return ports, nil
}

func pickPort(before int, taken map[int]bool) (int, error) {
	port := before
	for range portTries {
		if port > 0 && port < 1<<16 && !taken[port] && free(port) {
			taken[port] = true
			return port, nil
		}
		port = firstPort + rand.IntN(lastPort-firstPort)
	}
	return 0, fault.ResourceExhausted(ReasonStartFailed, "no free port between %d and %d on 127.0.0.1: end what holds them", firstPort, lastPort)
}

func free(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// authorities are the DirAuthority lines of the network.
func (p *Private) authorities() (out []string) {
	for _, n := range p.nodes {
		if n.authority {
			out = append(out, fmt.Sprintf("%s orport=%d no-v2 v3ident=%s 127.0.0.1:%d %s", n.name, n.orPort, n.v3ident, n.dirPort, n.fingerprint))
		}
	}
	return out
}

// consensusFiles are those in which tor keeps the consensus.
var consensusFiles = []string{"cached-consensus", microdescConsensus}

const microdescConsensus = "cached-microdesc-consensus"

func (p *Private) writeTorrcs() error {
	for _, n := range p.nodes {
		// With a consensus that still holds, authorities wait for its successor's turn and then disagree on whose turn it is; without one they vote within seconds. And
		// Ready sees only what this run has made.
		for _, f := range consensusFiles {
			if err := os.Remove(filepath.Join(n.data(), f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fault.FailedPrecondition(ReasonConfig, "cannot remove %s", filepath.Join(n.data(), f)).Because(err)
			}
		}
		if err := writeTorrc(n.torrcFile(), []byte(n.torrc(p.authorities(), p.cfg.VotingInterval))); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) torrc(authorities []string, voting time.Duration) string {
	t := torrc{}
	t.WriteString("# A tor of a private network on this machine, for tests and for trying things. It hides nothing. This file is written anew at each start.\n")
	t.say("Who is in the network, and that it is one for tests.")
	t.set("TestingTorNetwork", "1")
	for _, a := range authorities {
		t.set("DirAuthority", a)
	}
	t.testing()
	t.say("This tor: a relay that lets nothing out of the network.")
	t.set("Nickname", n.name)
	t.set("DataDirectory", n.data())
	t.set("Address", "127.0.0.1")
	t.set("ORPort", fmt.Sprintf("127.0.0.1:%d", n.orPort))
	t.set("ExitRelay", "0")
	t.set("SocksPort", "0")
	t.set("NumCPUs", "1")
	t.set("Log", "notice stdout")
	if n.authority {
		n.authorityOptions(&t, voting)
	}
	return strings.TrimLeft(t.String(), "\n")
}

func (n *node) authorityOptions(t *torrc, voting time.Duration) {
	t.say("An authority: every relay is good for all that onion services need.")
	t.set("AuthoritativeDirectory", "1")
	t.set("V3AuthoritativeDirectory", "1")
	t.set("DirPort", fmt.Sprintf("127.0.0.1:%d", n.dirPort))
	// A tor that is down is about to be started again, and one that came back would have to wait for up to 20 minutes until it is tested.
	t.set("AuthDirTestReachability", "0")
	t.set("TestingDirAuthVoteExit", "*")
	t.set("TestingDirAuthVoteHSDir", "*")
	t.set("TestingDirAuthVoteGuard", "*")
	t.set("V3AuthVotingInterval", strconv.Itoa(int(voting/time.Second)))
	// One vote may fail on a busy machine, and the consensus of before still holds.
	t.set("V3AuthNIntervalsValid", "3")
	t.set("V3AuthVoteDelay", "2")
	t.set("V3AuthDistDelay", "2")
	// Until there is a consensus: the shortest that tor takes.
	t.set("TestingV3AuthInitialVotingInterval", "5")
	t.set("TestingV3AuthInitialVoteDelay", "2")
	t.set("TestingV3AuthInitialDistDelay", "2")
}
