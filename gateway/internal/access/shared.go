package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// Bounds of the shared file.
const (
	maxShared = 4 << 20 // bytes
	maxTokens = 100
	// maxSpent is how many codes and sessions may be over before their time. Only who has a token can bring them about.
	maxSpent = 4096
)

// shared is a file beside the token file: the named tokens, by their hashes, and what must not be used again. All gateways of a node read and write it.
type shared struct{ path string }

// records are what it holds.
type records struct {
	Tokens []Named `json:"tokens"`
	// Spent are the ids of codes that were used and of sessions that were ended, until when they would have lasted.
	Spent map[string]time.Time `json:"spent,omitempty"`
}

// Named is one token beside the main one.
type Named struct {
	Name    string    `json:"name"`
	SHA256  string    `json:"sha256"` // hex
	Created time.Time `json:"created_at"`
}

// besideToken is the shared file of a token file: gateway.tokens.json beside gateway.token.
func besideToken(file string) shared {
	return shared{strings.TrimSuffix(file, ".token") + ".tokens.json"}
}

func (s shared) read() (records, error) {
	r := records{Spent: map[string]time.Time{}}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, s.unusable(err)
	}
	defer f.Close()
	if err := private(s.path); err != nil {
		return r, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxShared+1))
	if err == nil && len(b) > maxShared {
		err = fmt.Errorf("it is larger than %d bytes", maxShared)
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fault.FailedPrecondition("TOKENS_FILE_BAD", "%s is not as the gateway writes it: remove it, and make the tokens anew that were in it", s.path).Because(err)
	}
	if r.Spent == nil {
		r.Spent = map[string]time.Time{}
	}
	return r, nil
}

// change reads, changes and writes the file while no other gateway does. It blocks meanwhile.
func (s shared) change(now time.Time, f func(r *records) error) error {
	unlock, err := s.lock()
	if err != nil {
		return s.unusable(err)
	}
	defer unlock()
	r, err := s.read()
	if err != nil {
		return err
	}
	for id, until := range r.Spent {
		if !now.Before(until) {
			delete(r.Spent, id)
		}
	}
	if err := f(&r); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := home.WriteFile(s.path, append(b, '\n'), 0o600); err != nil {
		return s.unusable(err)
	}
	return nil
}

func (s shared) lock() (unlock func(), err error) {
	dir, name := filepath.Split(s.path)
	f, err := os.OpenFile(filepath.Join(dir, "."+name+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

func (s shared) unusable(err error) error {
	return fault.FailedPrecondition("TOKENS_FILE", "cannot use %s, where named tokens are kept: check its folder, its permissions and that there is room", s.path).Because(err)
}
