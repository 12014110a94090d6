// Package fence shuts processes off from every network, by the kernel and not by options: a process in a network namespace without an interface
// reaches nobody, whatever a library in it does. What is left to it are Unix sockets with a path, files and what it inherited. Families of sockets
// that have no namespaces, such as AF_VSOCK between a virtual machine and its host, are not shut off.
//
// It is Linux's. Elsewhere there is no fence, and Available says so.
package fence

import (
	"fmt"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
)

// Unavailable is the reason of the fault that Available gives.
const Unavailable = "FENCE_UNAVAILABLE"

// Fence is what a process sees of networks.
type Fence struct {
	// Enclosed: no interface leads anywhere.
	Enclosed bool `json:"enclosed"`
	// Interfaces are those that do, by name, sorted.
	Interfaces []string `json:"interfaces,omitempty"`
}

// Way is how this process can enclose those that it starts.
type Way int

// Ways. With Open nothing is enclosed, which is what somebody who does without a fence gets.
const (
	Open             Way = iota
	Inherited            // this process is enclosed itself, and so is all that it starts
	UserNamespace        // a user and a network namespace of the process's own
	NetworkNamespace     // a network namespace alone: for root, where there are no user namespaces
)

func (w Way) String() string {
	switch w {
	case Inherited:
		return "the namespace that this program was started in"
	case UserNamespace:
		return "user and network namespaces"
	case NetworkNamespace:
		return "network namespaces"
	case Open:
	}
	return "none"
}

// goResolver has Go programs ask name servers themselves, which they cannot reach. The C library, which they would ask else on some machines, has a name looked
// up by a service of the machine over a Unix socket, and that one is not enclosed.
const goResolver = "netdns=go"

// resolving returns an environment with goResolver in it.
func resolving(env []string) []string {
	const name = "GODEBUG="
	settings := goResolver
	out := make([]string, 0, len(env)+1)
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, name); ok {
			if value != "" {
				settings = value + "," + goResolver // the last of two wins
			}
			continue
		}
		out = append(out, e)
	}
	return append(out, name+settings)
}

// howToGet ends each message about a fence that is not to be had.
const howToGet = "Start the node where there is no network but Unix sockets (PrivateNetwork=yes of systemd, network_mode: none of a container), " +
	"or do without the fence: --unfenced"

func unavailable(why string, cause error) error {
	f := fault.FailedPrecondition(Unavailable, "%s", fmt.Sprintf("processes cannot be shut off from the network here: %s. %s", why, howToGet))
	if cause != nil {
		f = f.Because(cause)
	}
	return f
}
