package nodeclient

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// Target is the node that a command is for.
type Target struct {
	Endpoint string
	Cert     string // the directory of this client's credentials, where the endpoint is on the network
	// Home is nil where only an endpoint was given.
	Home *home.Home
	// Note says how the node was chosen, where the user did not say it.
	Note string
}

// Asked is what the user said of the node: nothing, an endpoint (with credentials where it is on the network), or a home.
type Asked struct {
	Endpoint, Cert, Home string
}

// Places are the directories that are looked in when the user names none.
type Places struct {
	Up, Dev, DevAnonymous string
}

// DefaultPlaces follows the XDG base directories.
func DefaultPlaces(getenv func(string) string) Places {
	base := getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(base) { // relative ones are to be ignored, says the specification
		userHome := getenv("HOME")
		if userHome == "" {
			userHome, _ = os.UserHomeDir()
		}
		base = filepath.Join(userHome, ".local", "share")
	}
	return Places{Up: filepath.Join(base, "shallot"), Dev: filepath.Join(base, "shallot-dev"), DevAnonymous: filepath.Join(base, "shallot-dev-anonymous")}
}

// Resolve finds the node: the endpoint, else the home, else this machine's node, else the first consumer of a running
// dev network.
func Resolve(asked Asked, places Places) (Target, error) {
	endpoint, cert, dir := asked.Endpoint, asked.Cert, asked.Home
	switch {
	case cert != "" && (endpoint == "" || strings.HasPrefix(endpoint, "unix:")):
		return Target{}, fault.InvalidArgument("TARGET_INVALID", "--cert is for a node on the network: say with --endpoint HOST:PORT where that is")
	case endpoint != "" && dir != "":
		return Target{}, fault.InvalidArgument("TARGET_INVALID", "--home and --endpoint both say which node: give one of them")
	case endpoint != "":
		return Target{Endpoint: endpoint, Cert: cert}, nil
	case dir != "":
		return fromHome(dir)
	}
	if h, err := home.Find(places.Up); err == nil && supervisor.Running(h) {
		return target(h, ""), nil
	}
	for _, dir := range []string{places.Dev, places.DevAnonymous} {
		if n, ok := runningNetwork(dir); ok {
			return firstConsumer(n, "")
		}
	}
	if h, err := home.Find(places.Up); err == nil && supervisor.RecordedRole(h) != "" {
		return Target{}, notRunning(h)
	}
	return Target{}, fault.Unavailable("NODE_NOT_RUNNING", "no node runs on this machine: start one with 'shallot up', or a small network with 'shallot dev', or say which with --home DIR or --endpoint ADDRESS")
}

func fromHome(dir string) (Target, error) {
	h, err := home.Find(dir)
	if err != nil {
		return Target{}, err
	}
	if n, err := supervisor.ReadNetwork(h.Dir); err == nil {
		return firstConsumer(n, h.Dir+" is a dev network; ")
	}
	if !supervisor.Running(h) {
		return target(h, ""), notRunning(h)
	}
	return target(h, ""), nil
}

func target(h home.Home, note string) Target {
	return Target{Endpoint: h.Endpoint("node"), Home: &h, Note: note}
}

func notRunning(h home.Home) error {
	what := "it"
	if isNetwork(filepath.Dir(h.Dir)) {
		what = "its network"
	}
	return fault.Unavailable("NODE_NOT_RUNNING", "the node in %s is not running: start %s with '%s'", h.Dir, what, StartCommand(h))
}

// StartCommand is what starts a node, in the mode of its home.
func StartCommand(h home.Home) string {
	command, dir := "shallot up", h.Dir
	if network := filepath.Dir(h.Dir); isNetwork(network) {
		command, dir = "shallot dev", network
	}
	if supervisor.RecordedMode(h) == supervisor.Anonymous {
		command += " --anonymous"
	}
	return command + " --home " + dir
}

func isNetwork(dir string) bool {
	_, err := supervisor.ReadNetwork(dir)
	return err == nil
}

func runningNetwork(dir string) (supervisor.Network, bool) {
	n, err := supervisor.ReadNetwork(dir)
	return n, err == nil && supervisor.Alive(n.PID) && len(n.Nodes) > 0
}

// firstConsumer picks where tasks can be submitted; a network without one still answers other questions.
func firstConsumer(n supervisor.Network, why string) (Target, error) {
	place := n.Nodes[0]
	for _, p := range n.Nodes {
		if p.Role == supervisor.Consumer {
			place = p
			break
		}
	}
	h, err := home.Find(place.Home)
	if err != nil {
		return Target{}, err
	}
	t := target(h, why+"using "+place.Name+" in "+place.Home)
	if !supervisor.Running(h) {
		return t, notRunning(h)
	}
	return t, nil
}
