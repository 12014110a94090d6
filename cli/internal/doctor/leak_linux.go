package doctor

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// canSee: /proc shows it.
const canSee = true

func namespaceOf(pid string) (string, error) {
	return os.Readlink(filepath.Join("/proc", pid, "ns", "net"))
}

// family are a process and all that it has started, as far as they are there.
func family(pid int) []int {
	parents := map[int]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		child, _ := strconv.Atoi(filepath.Base(dir))
		data, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		rest := string(data[strings.LastIndexByte(string(data), ')')+1:]) // a name may hold anything
		if f := strings.Fields(rest); len(f) > 1 {
			parents[child], _ = strconv.Atoi(f[1])
		}
	}
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		for child, parent := range parents {
			if parent == out[i] && !slices.Contains(out, child) {
				out = append(out, child)
			}
		}
	}
	return out
}

// see reads what /proc says of a process and of the network that it is in.
func see(pid int) (s sight, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if s.namespace, err = namespaceOf(strconv.Itoa(pid)); err != nil {
		return s, err
	}
	for name, fields := range table(filepath.Join(dir, "net", "dev")) {
		if name != "lo" && len(fields) > 9 && (counter(fields, 1) > 0 || counter(fields, 9) > 0) {
			s.interfaces = append(s.interfaces, name)
		}
	}
	slices.Sort(s.interfaces)
	snmp := counters(filepath.Join(dir, "net", "snmp"))
	s.sent = snmp["Ip.OutRequests"] + snmp["Udp.OutDatagrams"]
	s.dialled = snmp["Tcp.ActiveOpens"]
	mine := inodes(dir)
	for _, family := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6"} {
		for _, f := range table(filepath.Join(dir, "net", family)) {
			if len(f) > 8 && mine[f[8]] {
				if text, away := endpoint(f); away {
					s.sockets = append(s.sockets, family+" "+text)
				}
			}
		}
	}
	for _, f := range table(filepath.Join(dir, "net", "packet")) {
		if len(f) > 7 && mine[f[7]] {
			s.sockets = append(s.sockets, "packet")
		}
	}
	return s, nil
}

// table reads the lines of a file of /proc/net by their first word, the headings left out.
func table(path string) map[string][]string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	out := make(map[string][]string)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		head, rest, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if name, ok := strings.CutSuffix(head, ":"); ok {
			out[name] = strings.Fields(rest)
		} else if _, err := strconv.ParseUint(head, 16, 64); err == nil { // packet has no colon
			out[head] = strings.Fields(rest)
		}
	}
	return out
}

func counter(fields []string, i int) uint64 {
	n, _ := strconv.ParseUint(fields[i], 10, 64)
	return n
}

// counters reads /proc/net/snmp: a line of names and a line of values for each protocol.
func counters(path string) map[string]uint64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	out := make(map[string]uint64)
	var names []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(names) == 0 || len(f) == 0 || names[0] != f[0] || len(names) != len(f) {
			names = f
			continue
		}
		for i := 1; i < len(f); i++ {
			out[strings.TrimSuffix(f[0], ":")+"."+names[i]] = counter(f, i)
		}
		names = nil
	}
	return out
}

// inodes are the sockets that a process has open.
func inodes(dir string) map[string]bool {
	out := make(map[string]bool)
	links, _ := filepath.Glob(filepath.Join(dir, "fd", "*"))
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			if n, ok := strings.CutPrefix(to, "socket:["); ok {
				out[strings.TrimSuffix(n, "]")] = true
			}
		}
	}
	return out
}

// endpoint is where a socket leads to, and whether that is elsewhere. The fields are those after the number of the line: local and remote address first.
func endpoint(fields []string) (text string, away bool) {
	local, remote := address(fields[0]), address(fields[1])
	switch {
	case !local.IsValid() || !remote.IsValid():
		return fields[0] + " " + fields[1], true
	case remote.Addr().IsUnspecified(): // it listens, or is connected to nobody
		return fmt.Sprintf("open at %s", local), !local.Addr().Unmap().IsLoopback()
	}
	return remote.String(), !remote.Addr().Unmap().IsLoopback()
}

// address reads one of /proc/net: hexadecimal words of 32 bits in the machine's order, which is little-endian on all that Go's linux has but a few.
func address(s string) netip.AddrPort {
	host, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	n, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}
	}
	for i := 0; i < len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(n))
}
