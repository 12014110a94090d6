package reasons

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/shallot-net/shallot/kit/reasons"
)

// Missing compares the table with the sources: reasons that the one has and the other has not.
func Missing(entries []reasons.Entry, uses map[string][]Use) (unexplained, unused []string) {
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
func Page(uses map[string][]Use) ([]byte, error) {
	entries, err := reasons.Errors()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("# Errors\n\nEvery error has a status of gRPC, a message for people, and a reason for programs, which stays what it is. Over gRPC the reason is in a `google.rpc.ErrorInfo` of the domain `shallot.net`, over REST it is " +
		"`reason` of the body, and in the log of a process it is `reason`. The message says which input was wrong; this page says what a reason means in general. Written by `make reference`, from the sources and " +
		"`kit/reasons`.\n\nHow tasks end has [reasons of its own](#how-attempts-and-tasks-end), which `shallot task why ID` explains for one task.\n\n| reason | status | what it means | what mends it | given by |\n| --- | --- | --- | --- | --- |\n")
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
	if err := tasks(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// tasks are the words that people meet at tasks.
func tasks(b *bytes.Buffer) error {
	ends, err := reasons.Ends()
	if err != nil {
		return err
	}
	chosen, considered, err := reasons.Placement()
	if err != nil {
		return err
	}
	b.WriteString("\n## How attempts and tasks end\n\nThese are the reasons in `error` of a task and in its history. An executor of somebody's own may give others: its message says what they mean.\n\n" +
		"| reason | what it means | what to do |\n| --- | --- | --- |\n")
	for _, e := range ends {
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", e.Reason, e.Means, e.Mends)
	}
	b.WriteString("\n## Why a task is where it is\n\n`chosen_because` of an attempt, in a `GetPlacement`, says why its provider was chosen, or why nobody was:\n\n| code | what it means |\n| --- | --- |\n")
	codes(b, chosen)
	b.WriteString("\n`verdict` says what was thought of each provider that was considered:\n\n| code | what it means |\n| --- | --- |\n")
	codes(b, considered)
	return nil
}

func codes(b *bytes.Buffer, list []reasons.Code) {
	for _, c := range list {
		fmt.Fprintf(b, "| `%s` | %s |\n", c.Code, c.Means)
	}
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
