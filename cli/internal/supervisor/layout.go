package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// Roles of a node.
const (
	Provider = "provider"
	Consumer = "consumer"
)

// Processes that end after the others: these use the broker to say good-bye, and the broker tor.
const (
	Broker = "broker"
	Onion  = "onion"
	Tor    = "tor"
)

// Processes are the programs of this project that a node consists of, in the order in which the picture of ARCHITECTURE.md has them. An anonymous node
// may have a tor of its own beside them.
func Processes(role, mode string) (names []string) {
	if mode == Anonymous {
		names = append(names, Onion)
	}
	if role == Provider {
		return append(names, Broker, "discovery", "metric", "task", "node", "gateway")
	}
	return append(names, Broker, "task", "node", "gateway")
}

// State is what a running supervisor says of its node, in <home>/run/node.json. It outlives the supervisor: whether
// it is current shows in whether SupervisorPID is alive and holds the lock.
type State struct {
	Name          string         `json:"name"`
	Role          string         `json:"role"`
	Mode          string         `json:"mode"`
	Fence         string         `json:"fence,omitempty"` // of an anonymous node: enclosed or none
	SupervisorPID int            `json:"supervisor_pid"`
	StartedAt     time.Time      `json:"started_at"`
	Processes     []ProcessState `json:"processes"`
}

// ProcessState is one process of a node; PID is 0 while it does not run.
type ProcessState struct {
	Name      string    `json:"name"`
	PID       int       `json:"pid"`
	Restarts  int       `json:"restarts"`
	StartedAt time.Time `json:"started_at"`
	LastError string    `json:"last_error,omitempty"`
}

// Gateway is what the gateway says of itself in <home>/run/gateway.json.
type Gateway struct {
	URL       string `json:"url"`
	TokenFile string `json:"token_file"`
}

// Network is what a running dev says of its nodes, in DIR/dev.json.
type Network struct {
	PID       int         `json:"pid"`
	Mode      string      `json:"mode"`
	StartedAt time.Time   `json:"started_at"`
	Nodes     []NodePlace `json:"nodes"`
}

// NodePlace says where one node of a Network lives.
type NodePlace struct {
	Name string `json:"name"`
	Role string `json:"role"`
	Home string `json:"home"`
}

// settings are what a node keeps from one start to the next.
type settings struct {
	Role   string   `json:"role"`
	Mode   string   `json:"mode,omitempty"` // empty: open, as all were once
	Listen []string `json:"listen,omitempty"`
	// GatewayPort stays, so that what was told the gateway's URL finds it again.
	GatewayPort int `json:"gateway_port"`
	// Tor stays, because who needs a bridge must not be seen without it, not even once.
	Tor *TorSettings `json:"tor,omitempty"`
}

// ReadState reads <home>/run/node.json. No such file: fs.ErrNotExist.
func ReadState(h home.Home) (State, error) {
	var s State
	return s, readJSON(filepath.Join(runDir(h), "node.json"), &s)
}

// ReadGateway reads <home>/run/gateway.json. No such file: fs.ErrNotExist.
func ReadGateway(h home.Home) (Gateway, error) {
	var g Gateway
	return g, readJSON(filepath.Join(runDir(h), "gateway.json"), &g)
}

// ReadNetwork reads DIR/dev.json. No such file: fs.ErrNotExist.
func ReadNetwork(dir string) (Network, error) {
	var n Network
	return n, readJSON(networkFile(dir), &n)
}

func networkFile(dir string) string { return filepath.Join(dir, "dev.json") }

// RecordedRole is the role that this home was last started with, "" if it never was.
func RecordedRole(h home.Home) string {
	s, _ := readSettings(h)
	return s.Role
}

// RecordedMode is the mode that this home is used in, "" if it never was used.
func RecordedMode(h home.Home) string {
	s, _ := readSettings(h)
	if s.Role == "" {
		return ""
	}
	return s.mode()
}

// RecordedTor is how the node was last told to get to Tor; nothing is set where it has a tor of its own without bridges.
func RecordedTor(h home.Home) TorSettings {
	s, _ := readSettings(h)
	if s.Tor == nil {
		return TorSettings{}
	}
	return *s.Tor
}

func (s settings) mode() string {
	if s.Mode == "" {
		return Open
	}
	return s.Mode
}

// Running tells whether a supervisor holds the home or, where a node was started without one, its node service answers.
func Running(h home.Home) bool {
	if s, err := ReadState(h); err == nil && Alive(s.SupervisorPID) && Held(filepath.Join(h.Dir, "state", lockName, "lock")) {
		return true
	}
	return answers(h.Socket("node"))
}

// answers tells whether somebody listens on a Unix socket. A socket of nobody's is refused at once: whoever takes long, or has more callers than it can
// take now, is there. On a busy machine a node must not look as if it were down.
func answers(path string) bool {
	c, err := net.DialTimeout("unix", path, 2*time.Second)
	if err != nil {
		var slow net.Error
		return errors.As(err, &slow) && slow.Timeout()
	}
	_ = c.Close()
	return true
}

// LogFile is where a process's log of a supervised node is.
func LogFile(h home.Home, process string) string {
	return filepath.Join(h.Dir, "logs", process+".log")
}

// lockName is the supervisor's name among the locks of a home.
const lockName = "supervisor"

// runDir may be a link to a shorter directory: see kit/home.
func runDir(h home.Home) string { return filepath.Join(h.Dir, "run") }

func settingsPath(h home.Home) string { return filepath.Join(h.Dir, "state", lockName, "node.json") }

func readSettings(h home.Home) (settings, error) {
	var s settings
	return s, readJSON(settingsPath(h), &s)
}

func writeSettings(h home.Home, s settings) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	_ = h.State(lockName) // makes the directory
	return home.WriteFile(settingsPath(h), append(data, '\n'), 0o600)
}

// maxJSON bounds what is read of a file that another process wrote.
const maxJSON = 4 << 20

func readJSON(path string, into any) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxJSON {
		return fault.FailedPrecondition("STATE_UNREADABLE", "%s has %d bytes, which is too much to be true: remove it", path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fault.FailedPrecondition("STATE_UNREADABLE", "%s is not what was written there: remove it", path).Because(err)
	}
	return nil
}

// writeRunJSON replaces a file that says what runs now. Nothing is synced: after a crash of the machine nothing runs,
// whatever the file says.
func writeRunJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if _, err := tmp.Write(append(data, '\n')); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}

// IsNotExist is for callers that read the files above.
func IsNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
