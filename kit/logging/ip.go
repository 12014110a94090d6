package logging

import (
	"net/netip"
	"strings"
)

// maxIP is more than any address with its zone and port takes.
const maxIP = 80

// scrubIPs looks for addresses by parsing what could be one: a pattern for IPv6 either misses some or takes times
// of day for addresses.
func scrubIPs(s string) string {
	var out strings.Builder
	last := 0
	for i := 0; i < len(s); i++ {
		if !isAddr(s[i]) || !isStart(s, i) {
			continue
		}
		n, harmless := addrAt(s[i:])
		if n == 0 {
			continue
		}
		if !harmless {
			out.WriteString(s[last:i])
			out.WriteString(hidden(s[i : i+n]))
			last = i + n
		}
		i += n - 1
	}
	if last == 0 {
		return s
	}
	out.WriteString(s[last:])
	return out.String()
}

func isHex(c byte) bool  { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
func isAddr(c byte) bool { return isHex(c) || c == ':' || c == '[' }
func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

// isStart tells whether a word may begin at i: not inside another, unless that is a JSON escape.
func isStart(s string, i int) bool {
	if i == 0 {
		return true
	}
	prev := s[i-1]
	if prev == '.' { // inside a longer number with dots
		return i < 2 || !isWord(s[i-2])
	}
	return !isWord(prev) ||
		i >= 2 && s[i-2] == '\\' && strings.IndexByte("nrtbf", prev) >= 0 ||
		i >= 6 && s[i-6] == '\\' && s[i-5] == 'u'
}

// addrAt is the length of the longest address at the beginning of s, 0 for none, and whether it says nothing.
func addrAt(s string) (n int, harmless bool) {
	end, dots, colons, zone := 0, 0, 0, false
scan:
	for ; end < len(s) && end < maxIP; end++ {
		c := s[end]
		switch {
		case c == '.':
			dots++
		case c == ':':
			colons++
		case c == '%':
			zone = true
		case c == ']':
			zone = false
		case !isAddr(c) && !(zone && (isWord(c) || c == '-')):
			break scan
		}
	}
	if dots < 3 && colons < 2 {
		return 0, false
	}
	for ; end > 1; end-- {
		if end < len(s) && isWord(s[end]) && isWord(s[end-1]) && !zone {
			continue // it would end inside a word
		}
		if end+1 < len(s) && s[end] == '.' && isHex(s[end+1]) && colons == 0 {
			continue
		}
		if ip, ok := parseIP(s[:end]); ok {
			return end, ip.IsLoopback() || ip.IsUnspecified()
		}
	}
	return 0, false
}

func parseIP(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr(), true
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	return a, err == nil
}
