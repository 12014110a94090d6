// Package policy is who may call what between the services of a node, as one table, and what of it may be repeated. It holds where callers are known,
// which is off the Unix socket: a socket is protected by its folder.
package policy

import (
	"slices"
	"strings"
)

// Rule is one gRPC service at one process.
type Rule struct {
	Process string
	Service string   // its full name
	Callers []string // who may call all of it
	Reads   []string // unary methods that change nothing, so that they may be made again at another replica
	Long    []string // streams that stand for as long as both sides live, and that their callers open again when they end
}

// Rules is the whole table; it is a copy.
func Rules() []Rule { return slices.Clone(table) }

// Processes are those that the table has rules for, in its order.
func Processes() []string {
	var out []string
	for _, r := range table {
		if !slices.Contains(out, r.Process) {
			out = append(out, r.Process)
		}
	}
	return out
}

var (
	allowed = map[string]map[string]bool{} // process + "/" + service -> callers
	anyCall = map[string]map[string]bool{} // process -> callers of anything
	reads   = map[string]bool{}            // full method
	long    = map[string]bool{}            // full method
)

func init() {
	for _, r := range table {
		for _, c := range r.Callers {
			add(allowed, r.Process+"/"+r.Service, c)
			add(anyCall, r.Process, c)
		}
		for _, m := range r.Reads {
			reads["/"+r.Service+"/"+m] = true
		}
		for _, m := range r.Long {
			long["/"+r.Service+"/"+m] = true
		}
	}
	for _, m := range healthReads {
		reads[m] = true
	}
}

func add(m map[string]map[string]bool, key, caller string) {
	if m[key] == nil {
		m[key] = map[string]bool{}
	}
	m[key][caller] = true
}

// Allowed tells whether a caller may make a call, "/package.Service/Method", at a process.
func Allowed(process, caller, fullMethod string) bool {
	service, _, ok := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	if !ok {
		return false
	}
	switch {
	case service == health:
		return caller != ""
	case slices.Contains(reflection, service):
		return anyCall[process][caller]
	}
	return allowed[process+"/"+service][caller]
}

// Read tells whether a unary call changes nothing.
func Read(fullMethod string) bool { return reads[fullMethod] }

// Long tells whether a call is a stream that its caller opens again.
func Long(fullMethod string) bool { return long[fullMethod] }
