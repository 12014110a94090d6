// Package access decides which requests the gateway answers at all: by token, by session, by Host and by Origin.
package access

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// minToken is how many characters a token has at least: 22 of base 32 are 110 bits.
const minToken = 22

// Main is the name of the token that is in the token file.
const Main = "main"

// hash is what is kept of a token. Tokens have more bits than anybody can try, so that one round is enough.
type hash = [sha256.Size]byte

// secret is what is kept in memory of the main token: its hash, and what the keys of sessions are made from.
type secret struct {
	hash hash
	root []byte
}

// tokenFile is where the main token is: by default in the home.
func tokenFile(file string, h home.Home) string {
	if file == "" {
		return filepath.Join(h.Dir, "gateway.token")
	}
	return file
}

// readMain reads the token, and makes one where the file is missing. A file that others can read is refused: whoever reads it can use the node.
func readMain(file string) (secret, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = makeToken(file)
	}
	if err != nil {
		return secret{}, fault.FailedPrecondition("TOKEN_FILE", "cannot read or make the token file %s: check its folder and permissions", file).Because(err)
	}
	if err := private(file); err != nil {
		return secret{}, err
	}
	token := strings.TrimSpace(string(raw))
	if len(token) < minToken || strings.ContainsAny(token, " \t\r\n") {
		return secret{}, fault.FailedPrecondition("TOKEN_FILE_BAD", "the token file %s does not hold one word of at least %d characters: delete it, and a new one is made", file, minToken)
	}
	root, err := hkdf.Extract(sha256.New, []byte(token), []byte("shallot gateway"))
	return secret{sha256.Sum256([]byte(token)), root}, err
}

func private(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fault.FailedPrecondition("TOKEN_FILE", "cannot look at the token file %s", file).Because(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fault.FailedPrecondition("TOKEN_FILE_OPEN", "the token file %s has mode %04o, so that others can read it: chmod 600 it", file, info.Mode().Perm())
	}
	return nil
}

// makeToken writes a new token, whole or not at all. Where another gateway of the node was first, that one's holds: a rename would replace it
// under its feet.
func makeToken(file string) ([]byte, error) {
	raw := []byte(rand.Text() + "\n")
	half := file + "." + rand.Text()
	if err := home.WriteFile(half, raw, 0o600); err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(half) }()
	if err := os.Link(half, file); !errors.Is(err, fs.ErrExist) {
		return raw, err
	}
	return os.ReadFile(file)
}

// key is that of one kind of thing that is signed in the name of one token. It is another one when either that token or the main one is, so that
// nothing signed outlives them; and whoever reads the file of hashes cannot make it, because the main token is not in there.
func (s secret) key(kind string, of hash) []byte {
	k, err := hkdf.Expand(sha256.New, s.root, kind+" "+string(of[:]), sha256.Size)
	if err != nil {
		panic(err) // only for more bytes than there can be
	}
	return k
}
