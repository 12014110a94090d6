package reasons

import (
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed reasons.txt
var table string

// Entry is what a reason means, and what mends it.
type Entry struct{ Reason, Means, Mends string }

// Table is reasons.txt.
func Table() (out []Entry, err error) {
	n := 0
	for line := range strings.Lines(table) {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !shaped.MatchString(cells[0]) || strings.TrimSpace(cells[1]) == "" || strings.TrimSpace(cells[2]) == "" {
			return nil, fmt.Errorf("reasons.txt:%d: %q is no line of the form REASON | what it means | what mends it", n, line)
		}
		out = append(out, Entry{cells[0], cells[1], cells[2]})
	}
	return out, nil
}

// Missing compares the table with the sources: reasons that the one has and the other has not.
func Missing(entries []Entry, uses map[string][]Use) (unexplained, unused []string) {
	explained := map[string]bool{}
	for _, e := range entries {
		explained[e.Reason] = true
		if uses[e.Reason] == nil {
			unused = append(unused, e.Reason)
		}
	}
	for r := range uses {
		if !explained[r] {
			unexplained = append(unexplained, r)
		}
	}
	slices.Sort(unexplained)
	return unexplained, unused
}

// Page is all reasons on one page of Markdown.
func Page(entries []Entry, uses map[string][]Use) []byte {
	var b bytes.Buffer
	b.WriteString("# Errors\n\nEvery error has a status of gRPC, a message for people, and a reason for programs, which stays what it is. Over gRPC the reason is in a `google.rpc.ErrorInfo` of the domain `shallot.net`, over REST it is " +
		"`reason` of the body, and in the log of a process it is `reason`. The message says which input was wrong; this page says what a reason means in general. Written by `make reference`, from the sources and " +
		"`test/internal/reasons/reasons.txt`.\n\n| reason | status | what it means | what mends it | given by |\n| --- | --- | --- | --- | --- |\n")
	for _, e := range entries {
		var codes, where []string
		for _, u := range uses[e.Reason] {
			if u.Code != "" && !slices.Contains(codes, u.Code) {
				codes = append(codes, u.Code)
			}
			if by := process(u.Where); !slices.Contains(where, by) {
				where = append(where, by)
			}
		}
		slices.Sort(codes)
		slices.Sort(where)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", e.Reason, strings.Join(codes, ", "), e.Means, e.Mends, strings.Join(where, ", "))
	}
	return b.Bytes()
}

// process is who gives a reason: a process of a node, the command, or all by what they share.
func process(folder string) string {
	parts := strings.Split(folder, "/")
	switch {
	case parts[0] == "kit":
		return "every process"
	case parts[0] == "cli":
		return "shallot"
	case strings.Contains(folder, "/onions"):
		return "onion"
	case parts[0] == "services" && len(parts) > 1:
		return parts[1]
	}
	return parts[0]
}
