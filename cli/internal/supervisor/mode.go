package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// Modes of a node.
const (
	Open      = "open"
	Anonymous = "anonymous"
)

// CheckMode refuses a home that was used in the other mode: an identity that was seen in the open is never to be used anonymously, nor the other way round.
// The supervisor's settings say it, and the broker's mark does where a broker was run without a supervisor. A private network's key is for one mode, too. It is
// asked before anything is started.
func CheckMode(h home.Home, mode string) error {
	old, err := readSettings(h)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it may be an anonymous one's: do not guess
	}
	if old.Role != "" && old.mode() != mode {
		return wrongMode(h, old.mode(), mode, settingsPath(h))
	}
	if err := checkNetworkMode(h, mode); err != nil {
		return err
	}
	path := filepath.Join(h.Dir, "state", Broker, "mode")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.FailedPrecondition("STATE_UNREADABLE", "cannot read %s, which says in which mode the home is used", path).Because(err)
	}
	if was := strings.TrimSpace(string(data)); was != mode {
		return wrongMode(h, was, mode, path)
	}
	return nil
}

// checkNetworkMode keeps the key of an anonymous network out of the open, where who is in the network would show, and that of an open one out of Tor.
func checkNetworkMode(h home.Home, mode string) error {
	was, err := NetworkMode(h)
	switch {
	case err != nil:
		return err
	case was == "" || was == mode:
		return nil
	case was == Anonymous:
		return fault.FailedPrecondition("MODE_MISMATCH", "the private network of %s is for anonymous nodes, and its key must not be seen in the open: give --anonymous, or another --home", h.Dir)
	}
	return fault.FailedPrecondition("MODE_MISMATCH", "the private network of %s was made for open mode: leave --anonymous out, or make one with 'network create --anonymous' in another --home", h.Dir)
}

func wrongMode(h home.Home, was, mode, file string) error {
	if was == Anonymous {
		return fault.FailedPrecondition("MODE_MISMATCH", "%s is the home of an anonymous node (%s says so), and its identity must not be seen in the open: give --anonymous, or another --home", h.Dir, file)
	}
	return fault.FailedPrecondition("MODE_MISMATCH", "%s is the home of a node in %.20s mode (%s says so), and its identity has been seen there: for %s mode give another --home", h.Dir, was, file, mode)
}
