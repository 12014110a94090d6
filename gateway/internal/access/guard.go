package access

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Hosts are the names under which the gateway may be asked. A page of another site that resolves its own name to this machine (DNS
// rebinding) gives that name as Host, and is refused.
type Hosts struct {
	names map[string]bool
	port  string
}

// NewHosts allows the loopback names with the port that is listened on, and further names with any port.
func NewHosts(listen string, further []string) Hosts {
	h := Hosts{names: map[string]bool{}}
	host, port, _ := net.SplitHostPort(listen)
	h.port = port
	for _, n := range append([]string{"localhost", "127.0.0.1", "::1", host}, further...) {
		h.names[strings.ToLower(n)] = true
	}
	return h
}

// Allows tells whether a Host header names this gateway.
func (h Hosts) Allows(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), ""
	}
	name = strings.ToLower(name)
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

// Denial is why a request is not answered.
type Denial struct {
	Status          int
	Reason, Message string
}

// Guard checks requests before anything reads them.
type Guard struct {
	Token Token
	Hosts Hosts
}

// Check returns nil for a request that may pass. Open requests need no token: health and static pages.
func (g Guard) Check(r *http.Request, open bool) *Denial {
	if !g.Hosts.Allows(r.Host) {
		return &Denial{http.StatusForbidden, "HOST_NOT_ALLOWED", "this gateway is not known by that Host: use the address that `shallot node` shows, or allow the name with allowed_hosts"}
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !g.Hosts.Allows(u.Host) {
			return &Denial{http.StatusForbidden, "ORIGIN_NOT_ALLOWED", "pages of other origins may not ask this gateway"}
		}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" {
		return &Denial{http.StatusForbidden, "ORIGIN_NOT_ALLOWED", "pages of other sites may not ask this gateway"}
	}
	if !open && !g.Token.Allows(r.Header.Get("Authorization")) {
		return &Denial{http.StatusUnauthorized, "TOKEN_MISSING", "send the header `Authorization: Bearer TOKEN`, with the token from the file that `shallot node` names as token_file"}
	}
	return nil
}
