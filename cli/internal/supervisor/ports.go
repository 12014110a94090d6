package supervisor

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/shallot-net/shallot/kit/fault"
)

// Ports that a node keeps from start to start are below those that the kernel hands out for outgoing connections, so
// that a process gets its own back when it starts again: others were given its address.
const (
	firstPort = 20000
	lastPort  = 32000
	portTries = 200
)

// ports hands out loopback ports, each once.
type ports struct {
	mu    sync.Mutex
	taken map[int]bool
}

// pick returns the port that was had before where it is still free, else a new one.
func (p *ports) pick(before int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken == nil {
		p.taken = map[int]bool{}
	}
	port := before
	for range portTries {
		if port > 0 && !p.taken[port] && free(port) {
			p.taken[port] = true
			return port, nil
		}
		port = firstPort + rand.IntN(lastPort-firstPort)
	}
	return 0, fault.ResourceExhausted("NO_PORT", "no free port between %d and %d on 127.0.0.1: end what holds them", firstPort, lastPort)
}

const loopbackSwarm = "/ip4/127.0.0.1/tcp/"

// swarm is where a broker of a dev network listens.
func (p *ports) swarm(before []string) ([]string, error) {
	old := 0
	if len(before) == 1 {
		if rest, ok := strings.CutPrefix(before[0], loopbackSwarm); ok {
			old, _ = strconv.Atoi(rest)
		}
	}
	port, err := p.pick(old)
	return []string{fmt.Sprint(loopbackSwarm, port)}, err
}

func free(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
