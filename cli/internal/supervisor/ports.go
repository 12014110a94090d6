package supervisor

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
)

// Swarm ports of a dev network are below those that the kernel hands out for outgoing connections, so that a node gets
// its own back when its broker starts again: others were given its address.
const (
	firstPort = 20000
	lastPort  = 32000
	portTries = 200
)

// loopbackListen is where a broker of a dev network listens: as before where that is still free, else on a new port.
func loopbackListen(before []string, taken map[int]bool) ([]string, error) {
	if len(before) == 1 {
		if port, ok := portOf(before[0]); ok && !taken[port] && free(port) {
			taken[port] = true
			return before, nil
		}
	}
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if !taken[port] && free(port) {
			taken[port] = true
			return []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)}, nil
		}
	}
	return nil, fault.ResourceExhausted("NO_PORT", "no free port between %d and %d on 127.0.0.1: end what holds them", firstPort, lastPort)
}

func portOf(multiaddr string) (int, bool) {
	rest, ok := strings.CutPrefix(multiaddr, "/ip4/127.0.0.1/tcp/")
	port, err := strconv.Atoi(rest)
	return port, ok && err == nil && port > 0
}

func free(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
