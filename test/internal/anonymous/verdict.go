package anonymous

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// traced are the system calls that strace writes down: all that have to do with sockets, and the way around them.
const traced = "trace=network,io_uring_setup"

// Leak is a system call by which a process could have reached something else than a Unix socket.
type Leak struct {
	Process string // of which process's trace
	Line    string // what strace has written
	Why     string
}

func (l Leak) String() string { return fmt.Sprintf("%s: %s: %s", l.Process, l.Why, l.Line) }

// Calls is how much a trace has seen.
type Calls struct {
	All  int // system calls
	Unix int // connections to Unix sockets
}

var (
	// The process id is there with -f. A call that another thread interrupts has its arguments in the first of two lines, and in the second what the kernel has filled in.
	callLine = regexp.MustCompile(`^\d+ +(?:<\.\.\. )?([a-z0-9_]+)(\(| resumed>)(.*)$`)
	quoted   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	address  = regexp.MustCompile(`sa_family=([A-Z0-9_]+)`)
)

// Judge reads what strace -f has written of a process and its children. They may have Unix sockets, and those sockets of netlink by which interfaces are listed. Any other socket is a
// leak when it is made, whatever becomes of it, and so is any other address. (Go makes TCP sockets to find out which families a machine has, binds them to port 0 of loopback
// and closes them, but only in a process that is about to listen or dial by IP. So that is none of these either.)
func Judge(process string, trace io.Reader) (leaks []Leak, calls Calls, err error) {
	s := bufio.NewScanner(trace)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		m := callLine.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		calls.All++
		// What is sent may hold any text.
		call, second, args := m[1], m[2] != "(", quoted.ReplaceAllString(m[3], `""`)
		if call == "connect" && strings.Contains(args, "sa_family=AF_UNIX") {
			calls.Unix++
		}
		if why := suspicion(call, args, second); why != "" {
			leaks = append(leaks, Leak{process, s.Text(), why})
		}
	}
	return leaks, calls, s.Err()
}

// suspicion says why a call is a leak; second is of the second of two lines, which begins after what the kernel was given.
func suspicion(call, args string, second bool) string {
	if call == "io_uring_setup" {
		return "what goes by io_uring is not seen"
	}
	if !second && (call == "socket" || call == "socketpair") {
		family, rest, _ := strings.Cut(args, ", ")
		switch {
		case family == "AF_UNIX":
		case family == "AF_NETLINK" && strings.Contains(rest, "NETLINK_ROUTE"):
		default:
			return "a socket of " + family
		}
	}
	for _, m := range address.FindAllStringSubmatch(args, -1) {
		if family := m[1]; family != "AF_UNIX" && family != "AF_NETLINK" {
			return "an address of " + family
		}
	}
	return ""
}

// JudgeAll judges the traces in a folder. They are called node.process.number; seen has node.process.
func JudgeAll(dir string) (leaks []Leak, seen map[string]Calls, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.*.*"))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(files)
	seen = map[string]Calls{}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		l, calls, jerr := judgeFile(name, path)
		err = errors.Join(err, jerr)
		leaks = append(leaks, l...)
		sum := seen[name]
		seen[name] = Calls{sum.All + calls.All, sum.Unix + calls.Unix}
	}
	return leaks, seen, err
}

func judgeFile(name, path string) ([]Leak, Calls, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, Calls{}, err
	}
	defer f.Close()
	return Judge(name, f)
}
