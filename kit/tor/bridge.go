package tor

import (
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
)

// Bounds of what an operator gives: more is a file given by mistake.
const (
	maxBridges    = 64
	maxBridgeLine = 4 << 10
	fingerprint   = 20 // bytes
)

// CheckBridge tells whether a line is one of a bridge as tor takes it, "[TRANSPORT] IP:PORT [FINGERPRINT] [KEY=VALUE…]" with or without the word Bridge
// before it, and whether its transport is among those that plugins (lines as in ClientConfig.PluggableTransports) provide. Its faults name no address: that
// of a bridge is its operator's secret.
func CheckBridge(line string, plugins []string) error {
	name, err := checkBridge(line)
	if err != nil || name == "" {
		return err
	}
	for _, p := range plugins {
		names, _, err := parseTransport(p)
		if err != nil {
			return err
		}
		for _, n := range names {
			if n == name {
				return nil
			}
		}
	}
	return fault.InvalidArgument(ReasonBridge,
		"the bridge needs the pluggable transport %s, and none is configured: give its program as well (such as: %s exec /usr/bin/PROGRAM)", name, name)
}

// bridgeValue is the line as the torrc has it.
func bridgeValue(line string) string {
	line = strings.TrimSpace(line)
	if f := strings.Fields(line); len(f) > 0 && strings.EqualFold(f[0], "bridge") {
		line = strings.TrimSpace(line[len(f[0]):])
	}
	return line
}

// checkBridge returns the name of the pluggable transport, empty for a bridge without one.
func checkBridge(line string) (transport string, err error) {
	bad := func(why string, args ...any) (string, error) {
		return "", fault.InvalidArgument(ReasonBridge, "this is no bridge line, "+why+"; a bridge line is: [TRANSPORT] IP:PORT [FINGERPRINT] [KEY=VALUE]...", args...)
	}
	if len(line) > maxBridgeLine {
		return bad("it has %d bytes and %d at most are taken", len(line), maxBridgeLine)
	}
	if err := checkValue("a bridge line", line); err != nil {
		return "", err
	}
	f := strings.Fields(bridgeValue(line))
	if len(f) == 0 {
		return bad("it is empty")
	}
	if isTransportName(f[0]) {
		transport, f = f[0], f[1:]
	}
	if len(f) == 0 {
		return bad("it has no address")
	}
	addr, err := netip.ParseAddrPort(f[0])
	if err != nil || addr.Port() == 0 || addr.Addr().Zone() != "" {
		return bad("its address is not IP:PORT (IPv6 in brackets; no name, since tor asks no name server)")
	}
	f = f[1:]
	if len(f) > 0 && !strings.Contains(f[0], "=") {
		if b, err := hex.DecodeString(f[0]); err != nil || len(b) != fingerprint {
			return bad("its fingerprint is not 40 hexadecimal digits")
		}
		f = f[1:]
	}
	for _, kv := range f {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return bad("what follows the fingerprint is not KEY=VALUE")
		}
		if transport == "" {
			return bad("it has settings of a pluggable transport and does not name one")
		}
	}
	return transport, nil
}

// CheckTransport tells whether a line is one of a pluggable transport as tor takes it: "NAME[,NAME…] exec PROGRAM [OPTION…]" or "NAME[,NAME…] socks5 IP:PORT".
// It does not look whether the program is there.
func CheckTransport(line string) error {
	_, _, err := parseTransport(line)
	return err
}

// parseTransport returns the names that a pluggable transport provides and its program, which is empty where it runs elsewhere.
func parseTransport(line string) (names []string, program string, err error) {
	bad := func(why string, args ...any) ([]string, string, error) {
		return nil, "", fault.InvalidArgument(ReasonTransport,
			"this is no pluggable transport, "+why+"; one is: NAME[,NAME...] exec PROGRAM [OPTION]..., or NAME[,NAME...] socks5 IP:PORT", args...)
	}
	if len(line) > maxBridgeLine {
		return bad("it has %d bytes and %d at most are taken", len(line), maxBridgeLine)
	}
	if err := checkValue("a pluggable transport", line); err != nil {
		return nil, "", err
	}
	f := strings.Fields(transportValue(line))
	if len(f) < 3 {
		return bad("it has fewer than three words")
	}
	for n := range strings.SplitSeq(f[0], ",") {
		if !isTransportName(n) {
			return bad("%q is no name of one", clip(n, 40))
		}
		names = append(names, n)
	}
	switch f[1] {
	case "exec":
		if !strings.HasPrefix(f[2], "/") {
			return bad("the path of its program does not begin with /")
		}
		return names, f[2], nil
	case "socks4", "socks5":
		if a, err := netip.ParseAddrPort(f[2]); err != nil || a.Port() == 0 || len(f) > 3 {
			return bad("the address of its proxy is not IP:PORT")
		}
		return names, "", nil
	}
	return bad("its second word is neither exec nor socks5")
}

// transportValue is the line as the torrc has it.
func transportValue(line string) string {
	line = strings.TrimSpace(line)
	if f := strings.Fields(line); len(f) > 0 && strings.EqualFold(f[0], "ClientTransportPlugin") {
		line = strings.TrimSpace(line[len(f[0]):])
	}
	return line
}

// isTransportName tells a name as the specification of pluggable transports has it: a C identifier.
func isTransportName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= maxTag
}
