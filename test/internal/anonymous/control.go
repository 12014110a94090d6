package anonymous

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// control says one command to a node's tor and returns the lines of its answer.
func (n *Network) control(ctx context.Context, node, command string) (lines []string, err error) {
	tor, err := n.Tor(node)
	if err != nil {
		return nil, err
	}
	cookie, err := os.ReadFile(tor.Cookie)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", tor.Control)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "AUTHENTICATE %s\r\n%s\r\nQUIT\r\n", hex.EncodeToString(cookie), command); err != nil {
		return nil, err
	}
	for s := bufio.NewScanner(c); s.Scan(); {
		lines = append(lines, s.Text())
	}
	if len(lines) < 3 || lines[0] != "250 OK" {
		return nil, fmt.Errorf("tor says %q", lines)
	}
	return lines[1 : len(lines)-1], nil // without the answers to the first and the last
}

// CutCircuits closes the circuits by which a node has reached onion services, as relays do that go away, and returns how many there were. Its tor lives on.
func (n *Network) CutCircuits(ctx context.Context, node string) (cut int, err error) {
	lines, err := n.control(ctx, node, "GETINFO circuit-status")
	if err != nil {
		return 0, err
	}
	for _, l := range lines {
		f := strings.Fields(strings.TrimPrefix(l, "250+circuit-status="))
		if len(f) < 3 || f[1] != "BUILT" || !strings.Contains(l, "PURPOSE=HS_CLIENT_REND") {
			continue
		}
		if _, err := n.control(ctx, node, "CLOSECIRCUIT "+f[0]); err != nil {
			return cut, err
		}
		cut++
	}
	return cut, nil
}

// Entries are the relays that a node's tor is connected to, by their fingerprints.
func (n *Network) Entries(ctx context.Context, node string) (fingerprints []string, err error) {
	lines, err := n.control(ctx, node, "GETINFO orconn-status")
	for _, l := range lines {
		if f := strings.Fields(l[strings.IndexByte(l, '=')+1:]); len(f) == 2 && f[1] == "CONNECTED" {
			id, _, _ := strings.Cut(strings.TrimPrefix(f[0], "$"), "~")
			fingerprints = append(fingerprints, id)
		}
	}
	return fingerprints, err
}
