package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/invite"
)

// The files of a private network, in the home of a node or of a dev network. All are 0600: who has the key is in.
const (
	networkKeyFile       = "network.key"
	networkBootstrapFile = "network.bootstrap"
	networkModeFile      = "network.mode"
)

// WriteNetwork makes a home one of a private network, and marks it as one of that network's mode. One that has a network already keeps it, unless it is the
// same.
func WriteNetwork(h home.Home, n invite.Invite) error {
	if Running(h) || networkRuns(h) {
		return fault.FailedPrecondition("NODE_RUNNING", "a node runs on %s, and its network cannot be changed under it: stop it first", h.Dir)
	}
	path := filepath.Join(h.Dir, networkKeyFile)
	switch had, err := NetworkKey(h); {
	case err == nil && had != n.Key:
		return fault.FailedPrecondition("NETWORK_FIXED", "%s is of another private network, by the key in %s: take another --home", h.Dir, path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	mode := networkMode(n)
	if err := CheckMode(h, mode); err != nil {
		if f := fault.From(err); f.Reason == "MODE_MISMATCH" {
			return fault.FailedPrecondition(f.Reason, "the network is for nodes in %s mode, and %s is a home of the other one: take another --home", mode, h.Dir)
		}
		return err
	}
	// The key comes last: without the addresses it would be a network of one, and without the mode it could be used in the open.
	if err := home.WriteFile(filepath.Join(h.Dir, networkModeFile), []byte(mode+"\n"), 0o600); err != nil {
		return fault.FailedPrecondition("HOME_UNUSABLE", "cannot write to %s: is the disk full?", h.Dir).Because(err)
	}
	if len(n.Addresses) > 0 {
		if err := home.WriteFile(filepath.Join(h.Dir, networkBootstrapFile), []byte(strings.Join(n.Addresses, "\n")+"\n"), 0o600); err != nil {
			return fault.FailedPrecondition("HOME_UNUSABLE", "cannot write to %s: is the disk full?", h.Dir).Because(err)
		}
	}
	if err := home.WriteFile(path, invite.KeyFile(n.Key), 0o600); err != nil {
		return fault.FailedPrecondition("HOME_UNUSABLE", "cannot write to %s: is the disk full?", h.Dir).Because(err)
	}
	return nil
}

func networkMode(n invite.Invite) string {
	if n.Anonymous {
		return Anonymous
	}
	return Open
}

// NetworkMode is the mode that a home's private network is for; "" where there is none, or an earlier version has made it, which did not say.
func NetworkMode(h home.Home) (string, error) {
	if !exists(filepath.Join(h.Dir, networkKeyFile)) {
		return "", nil
	}
	path := filepath.Join(h.Dir, networkModeFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	mode := strings.TrimSpace(string(data))
	if err != nil || mode != Open && mode != Anonymous {
		return "", fault.FailedPrecondition("STATE_UNREADABLE", "%s says in which mode the private network is, and cannot be read: join the network again in another --home", path).Because(err)
	}
	return mode, nil
}

func networkRuns(h home.Home) bool {
	n, err := ReadNetwork(h.Dir)
	return err == nil && Alive(n.PID)
}

// NetworkKey is the key of a home's private network; fs.ErrNotExist in an open one.
func NetworkKey(h home.Home) ([invite.KeySize]byte, error) {
	path := filepath.Join(h.Dir, networkKeyFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return [invite.KeySize]byte{}, err
	}
	key, err := invite.ParseKeyFile(data)
	if err != nil {
		return key, fault.FailedPrecondition("NETWORK_KEY_BROKEN", "the network's key in %s: %v", path, err).Because(err)
	}
	return key, nil
}

// NetworkBootstrap are the addresses that a home's private network is joined through. What is no address is left out.
func NetworkBootstrap(dir string) (out []string) {
	data, err := os.ReadFile(filepath.Join(dir, networkBootstrapFile))
	if err != nil || len(data) > maxJSON {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		if a := strings.TrimSpace(line); invite.CheckAddress(a) == nil && len(out) < invite.MaxAddresses {
			out = append(out, a)
		}
	}
	return out
}
