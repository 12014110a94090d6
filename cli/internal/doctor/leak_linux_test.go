package doctor

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"4D0200C0:01BB":                         "192.0.2.77:443",
		"00000000000000000000000001000000:0016": "[::1]:22",
		"0000000000000000FFFF00004D0200C0:01BB": "[::ffff:192.0.2.77]:443",
		"":                                      "invalid AddrPort", "zz:1": "invalid AddrPort", "0100007F": "invalid AddrPort", "0100:1": "invalid AddrPort",
	} {
		if got := address(in).String(); got != want {
			t.Errorf("%q is %s, want %s", in, got, want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for _, c := range []struct {
		local, remote string
		away          bool
	}{
		{"0100007F:1F90", "00000000:0000", false}, // listens on the loopback address
		{"00000000:1F90", "00000000:0000", true},  // listens everywhere
		{"0100007F:1F90", "0100007F:0050", false},
		{"0A00000A:1F90", "4D0200C0:01BB", true},
		{"0000000000000000FFFF00000100007F:1F90", "0000000000000000FFFF00000100007F:0050", false},
		{"garbage", "00000000:0000", true},
	} {
		if _, away := endpoint([]string{c.local, c.remote}); away != c.away {
			t.Errorf("%s to %s: away is %v", c.local, c.remote, away)
		}
	}
}

func TestCounters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snmp")
	if err := os.WriteFile(path, []byte("Ip: A OutRequests\nIp: 1 77\nUdp: OutDatagrams\nUdp: 5\nTorn: x y\nTorn: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := counters(path)
	if got["Ip.OutRequests"] != 77 || got["Udp.OutDatagrams"] != 5 || len(got) != 3 {
		t.Errorf("%v", got)
	}
}

// The check sees sockets of the process itself, so it would see a leak.
func TestItSeesSockets(t *testing.T) {
	c, err := net.Dial("udp", "192.0.2.77:53") // it sends nothing
	if err != nil {
		t.Skipf("this machine has no way there: %v", err)
	}
	defer c.Close()
	s, err := see(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.sockets, "udp 192.0.2.77:53") {
		t.Errorf("it sees %v", s.sockets)
	}
	if own, err := namespaceOf("self"); err != nil || own != s.namespace {
		t.Errorf("the namespace is %s, %v, and it sees %s", own, err, s.namespace)
	}
}

func TestFamily(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	if got := family(os.Getpid()); !slices.Contains(got, cmd.Process.Pid) || got[0] != os.Getpid() {
		t.Errorf("the family is %v, the child %d", got, cmd.Process.Pid)
	}
}

func TestVerdicts(t *testing.T) {
	quiet := map[int]sight{1: {namespace: "n"}}
	for _, c := range []struct {
		name, fence   string
		before, after map[int]sight
		status, says  string
	}{
		{"broker", "enclosed", quiet, quiet, OK, "nothing sent"},
		{"broker", "enclosed", quiet, map[int]sight{1: {namespace: "n", sent: 3}}, Wrong, "3 packets"},
		{"broker", "enclosed", quiet, map[int]sight{1: {namespace: "n", dialled: 1}}, Wrong, "1 connections"},
		{"broker", "enclosed", quiet, map[int]sight{1: {namespace: "n", interfaces: []string{"eth0"}}}, Wrong, "eth0"},
		{"broker", "enclosed", quiet, map[int]sight{1: {namespace: "own"}}, Wrong, "of this machine"},
		{"task", "enclosed", quiet, map[int]sight{1: {namespace: "n"}, 2: {namespace: "m", sockets: []string{"udp 192.0.2.77:53"}}}, Wrong, "192.0.2.77"},
		{"broker", "none", quiet, map[int]sight{1: {namespace: "own"}}, Warning, "of this machine"},
		{"gateway", "enclosed", nil, map[int]sight{1: {namespace: "own"}}, OK, "loopback"},
		{"gateway", "enclosed", nil, map[int]sight{1: {namespace: "own", sockets: []string{"tcp 192.0.2.7:1"}}}, Wrong, "192.0.2.7"},
		{"onion", "enclosed", nil, map[int]sight{1: {namespace: "own", sockets: []string{"tcp 192.0.2.7:1"}}}, Wrong, "192.0.2.7"},
		{"tor", "enclosed", nil, map[int]sight{1: {namespace: "own", sockets: []string{"tcp 192.0.2.7:1"}}}, OK, "1 connections"},
		{"metric", "enclosed", nil, nil, Warning, "does not run"},
	} {
		d := &Doctor{}
		d.state.Fence = c.fence
		d.leakOf(c.name, "own", c.before, c.after, 1)
		if f := d.report.Findings[0]; f.Status != c.status || !strings.Contains(f.Detail, c.says) {
			t.Errorf("%s with %v: %+v", c.name, c.after, f)
		}
	}
}

// In a container or a unit without a network everything is behind one fence, and that of the gateway, which listens there.
func TestVerdictsWithinTheFence(t *testing.T) {
	for _, c := range []struct {
		name, status, says string
		after              sight
	}{
		{"quiet", OK, "no interface", sight{namespace: "own"}},
		{"loopback traffic of others", OK, "the fence that this program is in", sight{namespace: "own", sent: 30, dialled: 4}},
		{"an interface", Wrong, "eth0", sight{namespace: "own", interfaces: []string{"eth0"}}},
		{"a socket", Wrong, "192.0.2.77", sight{namespace: "own", sockets: []string{"udp 192.0.2.77:53"}}},
		{"traffic in a namespace of its own", Wrong, "3 packets", sight{namespace: "n", sent: 3}},
	} {
		d := &Doctor{within: true}
		d.state.Fence = "enclosed"
		d.leakOf("broker", "own", nil, map[int]sight{1: c.after}, 1)
		if f := d.report.Findings[0]; f.Status != c.status || !strings.Contains(f.Detail, c.says) {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
}
