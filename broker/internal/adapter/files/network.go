package files

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// NetworkKey reads the pre-shared key of a private network, with parse; nil when there is no file and it need not be there.
func NetworkKey(path string, required bool, parse func(io.Reader) ([]byte, error)) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil, nil
	}
	if err != nil {
		return nil, fault.FailedPrecondition("NETWORK_KEY_UNREADABLE", "cannot read the network's key in %s", path).Because(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.FailedPrecondition("NETWORK_KEY_UNREADABLE", "cannot read the network's key in %s", path).Because(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.FailedPrecondition("NETWORK_KEY_EXPOSED", "other users can read the network's key in %s (mode %o): if nobody has, chmod 600 it, else make a new network", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fault.FailedPrecondition("NETWORK_KEY_UNREADABLE", "cannot read the network's key in %s", path).Because(err)
	}
	key, err := parse(bytes.NewReader(data))
	if err != nil {
		return nil, fault.FailedPrecondition("NETWORK_KEY_BROKEN", "the network's key in %s is torn, or no swarm key: join the network again by an invite", path).Because(err)
	}
	return key, nil
}

// ClaimNetwork marks a directory with the private network that it is used in, by a hash of the key. A node of a private network never
// comes up outside of it, not even when its key file is lost: those who were kept out would see it, and it them.
func ClaimNetwork(dir string, key []byte) error {
	path := filepath.Join(dir, "network")
	now := ""
	if key != nil {
		sum := sha256.Sum256(append([]byte("shallot network\x00"), key...))
		now = hex.EncodeToString(sum[:8])
	}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && now == "":
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if err := home.WriteFile(path, []byte(now+"\n"), 0o600); err != nil {
			return fault.FailedPrecondition("STATE_UNUSABLE", "cannot write %s: is the disk full?", path).Because(err)
		}
		return nil
	case err != nil:
		return fault.FailedPrecondition("STATE_UNUSABLE", "cannot read %s", path).Because(err)
	}
	switch was := strings.TrimSpace(string(b)); {
	case was == now:
		return nil
	case now == "":
		return fault.FailedPrecondition("NETWORK_KEY_MISSING", "this home is of a private network (%s says so) and its key is not there: join it again with 'shallot network join', or take another home", path)
	}
	return fault.FailedPrecondition("NETWORK_MISMATCH", "this home is of another private network (%s says so) than the key that it has now: put back the former key, or take another home", path)
}
