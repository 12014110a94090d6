package access

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
)

// Hosts are the names under which the gateway may be asked. A page of another site that resolves its own name to this machine (DNS
// rebinding) gives that name as Host, and is refused.
type Hosts struct {
	names  map[string]bool
	port   string
	ranges []ports
}

// ports of one name through which requests come, where something forwards them.
type ports struct {
	name        string
	first, last uint16
}

// NewHosts allows the loopback names with the port that is listened on, and further ones: a name with any port, NAME:PORT, or NAME:FIRST-LAST. On
// loopback other ports belong to other programs, whose pages must not ask this one, so those that lead here have to be named.
func NewHosts(listen string, further []string) (Hosts, error) {
	h := Hosts{names: map[string]bool{}}
	host, port, _ := net.SplitHostPort(listen)
	h.port = port
	for _, n := range append([]string{"localhost", "127.0.0.1", "::1", host}, further...) {
		name, span, err := net.SplitHostPort(n)
		if err != nil { // no port
			h.names[strings.ToLower(strings.Trim(n, "[]"))] = true
			continue
		}
		from, to, spans := strings.Cut(span, "-")
		if !spans {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if name == "" || err1 != nil || err2 != nil || first == 0 || last < first {
			return Hosts{}, fault.InvalidArgument("ALLOWED_HOSTS", "allowed_hosts has %q: it must be NAME, NAME:PORT or NAME:FIRST-LAST, such as localhost:8080-8089", n)
		}
		h.ranges = append(h.ranges, ports{strings.ToLower(name), uint16(first), uint16(last)})
	}
	return h, nil
}

// Allows tells whether a Host header names this gateway.
func (h Hosts) Allows(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), ""
	}
	name = strings.ToLower(name)
	if n, err := strconv.ParseUint(port, 10, 16); err == nil && slices.ContainsFunc(h.ranges, func(p ports) bool {
		return p.name == name && p.first <= uint16(n) && uint16(n) <= p.last
	}) {
		return true
	}
	if !h.names[name] {
		return false
	}
	// Only a proxy in front may show another port, and it has a name of its own.
	return port == h.port || (port == "" && h.port == "80") || !loopback(name)
}

func loopback(name string) bool {
	ip := net.ParseIP(name)
	return name == "localhost" || (ip != nil && ip.IsLoopback())
}
