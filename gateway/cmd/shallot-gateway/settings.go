package main

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/home"
)

type settings struct {
	config.Common
	Mode         string        `koanf:"mode" help:"open or anonymous, as the broker's: in anonymous mode traces go to a collector on this machine or nowhere"`
	Node         string        `koanf:"node" help:"endpoint of the node service; empty: its socket in the home"`
	HTTP         string        `koanf:"http" help:"host:port to serve REST on; with port 0 a free one is chosen once and kept"`
	TokenFile    string        `koanf:"token_file" help:"file with the bearer token, made when missing; beside it is a file of the tokens that were added; gateways of one node share both; empty: gateway.token in the home"`
	Siblings     string        `koanf:"siblings" help:"file that names the nodes of one user between which the dashboard can switch, as 'shallot dev' writes it; they have one token file; empty: none"`
	AllowedHosts []string      `koanf:"allowed_hosts" help:"further names that requests may give as Host: node.example.org with any port, or, where a port of this machine leads here, NAME:PORT or NAME:FIRST-LAST"`
	MaxBody      config.Size   `koanf:"max_body" help:"largest JSON request body"`
	MaxUpload    config.Size   `koanf:"max_upload" help:"largest body of an upload or of content"`
	Timeout      time.Duration `koanf:"timeout" help:"limit of a call that is no stream"`
	OffLoopback  bool          `koanf:"off_loopback" help:"serve on an address that other machines can reach: put TLS in front of it"`
}

const (
	modeOpen      = "open"
	modeAnonymous = "anonymous"
)

func newSettings() *settings {
	return &settings{Mode: modeOpen, HTTP: "127.0.0.1:0", MaxBody: 12 << 20, MaxUpload: 8 << 30, Timeout: 10 * time.Second}
}

// Validate finds what the types cannot.
func (s *settings) Validate() error {
	if s.Mode != modeOpen && s.Mode != modeAnonymous {
		return fmt.Errorf("mode is %q: it must be %s or %s", s.Mode, modeOpen, modeAnonymous)
	}
	host, _, err := net.SplitHostPort(s.HTTP)
	if err != nil {
		return fmt.Errorf("http is %q: give host:port, such as 127.0.0.1:8080", s.HTTP)
	}
	addr, err := netip.ParseAddr(host)
	if loopback := host == "localhost" || (err == nil && addr.IsLoopback()); !loopback && !s.OffLoopback {
		return fmt.Errorf("http is %q, which other machines can reach, in plain text: use a loopback address, or set off_loopback behind a proxy with TLS", s.HTTP)
	}
	if s.MaxBody < 1<<10 || s.MaxBody > 64<<20 {
		return fmt.Errorf("max_body is %v: it must be 1KiB to 64MiB", s.MaxBody)
	}
	if s.MaxUpload < s.MaxBody {
		return fmt.Errorf("max_upload is %v, less than max_body %v", s.MaxUpload, s.MaxBody)
	}
	if s.Timeout < 100*time.Millisecond || s.Timeout > 5*time.Minute {
		return fmt.Errorf("timeout is %v: it must be 100ms to 5m", s.Timeout)
	}
	return nil
}

func (s *settings) nodeEndpoint(h home.Home) string {
	if s.Node != "" {
		return s.Node
	}
	return h.Endpoint("node")
}
