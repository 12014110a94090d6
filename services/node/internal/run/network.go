package run

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/invite"
)

// Where `shallot network` and `shallot dev` keep the key of a private network: in the home, or in the folder of the network that the home is in.
const (
	networkKeyFile = "network.key"
	networkFile    = "dev.json"
)

// networkKey reads the key of the private network that a home is of.
func networkKey(dir string) (key [invite.KeySize]byte, err error) {
	if dir == "" {
		return key, errOpen
	}
	path := filepath.Join(dir, networkKeyFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		up := filepath.Dir(dir)
		if _, no := os.Stat(filepath.Join(up, networkFile)); no != nil {
			return key, errOpen
		}
		path = filepath.Join(up, networkKeyFile)
		b, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return key, errOpen
	}
	if err != nil {
		return key, fault.FailedPrecondition("NETWORK_KEY_UNREADABLE", "the network's key cannot be read by the node service: %v", err).Because(err)
	}
	if key, err = invite.ParseKeyFile(b); err != nil {
		return key, fault.FailedPrecondition("NETWORK_KEY_BROKEN", "the network's key in %s: %v", path, err).Because(err)
	}
	return key, nil
}

var errOpen = fault.FailedPrecondition("NETWORK_OPEN", "this node is of no private network, and an open one needs no invite: give others the addresses that 'shallot node --show-addresses' prints, or begin anew with 'shallot network create'")
