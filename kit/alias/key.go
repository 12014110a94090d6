package alias

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shallot-net/shallot/kit/fault"
)

// KeySize is how many bytes a key has.
const KeySize = 32

// Key makes aliases. It is safe for concurrent use.
type Key struct{ secret []byte }

// Path is where the key of the home in dir is.
func Path(dir string) string { return filepath.Join(dir, "state", "alias.key") }

// New is a key of the given 32 bytes; Open and Find read a home's.
func New(secret [KeySize]byte) *Key { return &Key{secret[:]} }

// Open reads the key of the home in dir, and makes it where there is none yet. Processes that do so at once get the same.
func Open(dir string) (*Key, error) {
	k, err := Find(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := create(Path(dir)); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.FailedPrecondition("HOME_UNUSABLE", "cannot make the key of peers' aliases, %s: check the permissions and the room of its directory", Path(dir)).Because(err)
	}
	return Find(dir)
}

// Find reads the key of the home in dir. The error is fs.ErrNotExist where there is none.
func Find(dir string) (*Key, error) {
	path := Path(dir)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, unusable(path, "it cannot be read").Because(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, unusable(path, "it cannot be read").Because(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, unusable(path, "others than its owner may read it: chmod 600 it").With("path", path)
	}
	secret, err := io.ReadAll(io.LimitReader(f, KeySize+1))
	if err != nil || len(secret) != KeySize {
		return nil, unusable(path, "it has not 32 bytes: remove it, and every peer gets a new alias").Because(err)
	}
	return &Key{secret}, nil
}

func unusable(path, why string) *fault.Error {
	return fault.FailedPrecondition("ALIAS_KEY_UNUSABLE", "the key of peers' aliases, %s, is not usable: %s", path, why)
}

// create writes a new key, whole or not at all; fs.ErrExist when another process was first.
func create(path string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".alias-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	var secret [KeySize]byte
	_, _ = rand.Read(secret[:]) // it never fails
	_, err = tmp.Write(secret[:])
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	// A rename would replace the key that another process has made meanwhile, and may be using.
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

const (
	prefix = "p-"
	digits = "0123456789abcdefghjkmnpqrstvwxyz" // without i, l, o and u, which are read as others
	length = 8                                  // 40 bits: two of 4,096 peers share one in 130,000 homes
)

var encoding = base32.NewEncoding(digits).WithPadding(base32.NoPadding)

// Of is the alias of a peer, such as p-3k9xw2mh; "" of none.
func (k *Key) Of(peerID string) string {
	if peerID == "" {
		return ""
	}
	m := hmac.New(sha256.New, k.secret)
	_, _ = io.WriteString(m, peerID)
	return prefix + encoding.EncodeToString(m.Sum(nil)[:length*5/8])
}

// Parse returns what a person typed as an alias, in the form that Of has; ok is false where it cannot be one.
func Parse(typed string) (alias string, ok bool) {
	s := strings.ToLower(typed)
	if len(s) != len(prefix)+length || !strings.HasPrefix(s, prefix) || strings.Trim(s[len(prefix):], digits) != "" {
		return "", false
	}
	return s, true
}

// Meant tells whether a person may have meant an alias, also where Parse reads none.
func Meant(typed string) bool {
	return len(typed) <= 2*(len(prefix)+length) && strings.HasPrefix(strings.ToLower(typed), prefix)
}

// Derive makes a key of 32 bytes for another purpose. It tells nothing of this one.
func (k *Key) Derive(purpose string) []byte {
	out, err := hkdf.Expand(sha256.New, k.secret, "shallot alias: "+purpose, KeySize)
	if err != nil { // only of a length that SHA-256 cannot give
		panic(err)
	}
	return out
}
