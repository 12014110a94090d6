// Package access decides which requests the gateway answers at all: by token, by Host and by Origin.
package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
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

// Token is the one bearer token of a node. Only its hash is kept in memory.
type Token struct {
	File string
	hash [sha256.Size]byte
}

// LoadToken reads the token from a file (by default gateway.token in the home), and makes one where the file is missing. A file
// that others can read is refused: whoever reads it can use the node.
func LoadToken(file string, h home.Home) (Token, error) {
	if file == "" {
		file = filepath.Join(h.Dir, "gateway.token")
	}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = makeToken(file)
	}
	if err != nil {
		return Token{}, fault.FailedPrecondition("TOKEN_FILE", "cannot read or make the token file %s: check its folder and permissions", file).Because(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return Token{}, fault.FailedPrecondition("TOKEN_FILE", "cannot look at the token file %s", file).Because(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return Token{}, fault.FailedPrecondition("TOKEN_FILE_OPEN", "the token file %s has mode %04o, so that others can read it: chmod 600 it", file, info.Mode().Perm())
	}
	token := strings.TrimSpace(string(raw))
	if len(token) < minToken || strings.ContainsAny(token, " \t\r\n") {
		return Token{}, fault.FailedPrecondition("TOKEN_FILE_BAD", "the token file %s does not hold one word of at least %d characters: delete it, and a new one is made", file, minToken)
	}
	return Token{File: file, hash: sha256.Sum256([]byte(token))}, nil
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

// Allows tells whether an Authorization header carries the token, in constant time.
func (t Token) Allows(authorization string) bool {
	scheme, word, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	got := sha256.Sum256([]byte(strings.TrimSpace(word)))
	return subtle.ConstantTimeCompare(got[:], t.hash[:]) == 1
}
