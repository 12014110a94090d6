package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// needsBootstrap: a provider joins through discovery, a consumer, which has none, through node.
func needsBootstrap(role, process string) bool {
	return role == Provider && process == "discovery" || role == Consumer && process == "node"
}

// args is the command line of a process; the home comes first, so that whoever looks at a process table sees it.
func (n *Node) args(name string) []string {
	args := []string{"--home", n.home.Dir}
	anonymous := n.cfg.Anonymity
	switch name {
	case Onion:
		args = append(args, anonymous.onion(n.home)...)
	case "task", "node", "discovery", "metric":
		args = append(args, "--role", n.cfg.Role)
		if anonymous != nil {
			args = append(args, "--mode", Anonymous)
		}
	case Broker:
		if anonymous != nil {
			args = append(args, anonymous.broker(n.home, n.cfg.Role)...)
		} else {
			args = append(args, n.openBroker()...)
		}
		// The home's own the broker finds itself.
		if key := filepath.Join(n.cfg.Network, networkKeyFile); n.cfg.Network != "" && exists(key) && !configured(n.home, Broker, "network_key_file") {
			args = append(args, "--network-key-file", key)
		}
	case "gateway":
		if !configured(n.home, "gateway", "http") {
			args = append(args, "--http", fmt.Sprintf("127.0.0.1:%d", n.keep.GatewayPort))
		}
		args = append(args, n.shared()...)
	}
	// On an anonymous provider only those run that are named at its start, whatever its configuration has.
	if name == "task" && (len(n.cfg.Executors) > 0 || anonymous != nil && n.cfg.Role == Provider) {
		args = append(args, "--provider.executors", strings.Join(n.cfg.Executors, ","))
	}
	if needsBootstrap(n.cfg.Role, name) {
		if addrs := n.bootstrap(); len(addrs) > 0 {
			args = append(args, "--bootstrap", strings.Join(addrs, ","))
		}
	}
	return args
}

// shared is what the gateways of a dev network have in common: a token, and with it sessions of browsers, which can go from one to another.
func (n *Node) shared() (args []string) {
	if n.cfg.Siblings == "" {
		return nil
	}
	if !configured(n.home, "gateway", "token_file") {
		args = append(args, "--token-file", filepath.Join(filepath.Dir(n.cfg.Siblings), "gateway.token"))
	}
	if !configured(n.home, "gateway", "siblings") {
		args = append(args, "--siblings", n.cfg.Siblings)
	}
	return args
}

// openBroker are the arguments of a broker in open mode.
func (n *Node) openBroker() (args []string) {
	if len(n.cfg.Listen) > 0 || !configured(n.home, Broker, "listen_addrs") {
		args = append(args, "--listen-addrs", strings.Join(n.keep.Listen, ","))
	}
	if n.cfg.Role == Provider && !configured(n.home, Broker, "routing") { // others find it, and it keeps their records; a consumer only asks
		args = append(args, "--routing", "server")
	}
	return args
}

// bootstrap is what the user gave, and what the invite to the home's network held.
func (n *Node) bootstrap() (out []string) {
	if n.cfg.BootstrapAddrs != nil {
		out = append(out, n.cfg.BootstrapAddrs()...)
	}
	dir := n.cfg.Network
	if dir == "" {
		dir = n.home.Dir
	}
	out = append(out, NetworkBootstrap(dir)...)
	if n.cfg.Anonymity != nil { // an open network's are none for it
		out = slices.DeleteFunc(out, func(a string) bool { return !strings.HasPrefix(a, "/onion3/") })
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
