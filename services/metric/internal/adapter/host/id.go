package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
)

// bootID is what the kernel calls its life since the machine started: containers on one host see the same, and no other host has it.
const bootID = "/proc/sys/kernel/random/boot_id"

// ID names this host among those of a node: a digest of the kernel's boot id, so that what is stored says nothing of the machine. On systems without one it is of the host's name.
func ID() (string, error) { return idOf(bootID, os.Hostname) }

func idOf(path string, name func() (string, error)) (string, error) {
	b, err := os.ReadFile(path)
	id := strings.TrimSpace(string(b))
	if errors.Is(err, fs.ErrNotExist) {
		id, err = name()
	}
	if err != nil || id == "" {
		return "", fault.FailedPrecondition("HOST_UNKNOWN", "cannot tell this host from others: %s cannot be read, and several replicas would count it several times", path).Because(err)
	}
	sum := sha256.Sum256([]byte("shallot host " + id))
	return hex.EncodeToString(sum[:16]), nil
}
