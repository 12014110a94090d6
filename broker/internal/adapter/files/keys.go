// Package files is what the broker keeps on disk besides content: personas' keys and the mode of the home.
package files

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// maxKeyFile bounds what is read: a key file has about 120 bytes.
const maxKeyFile = 4096

const pemType = "PRIVATE KEY"

// Keys keeps one PKCS #8 file for each persona: DIR/identity.pem is the node's own, DIR/personas/NAME.pem are the others.
type Keys struct{ dir string }

// NewKeys makes the directories.
func NewKeys(dir string) (*Keys, error) {
	if err := os.MkdirAll(filepath.Join(dir, "personas"), 0o700); err != nil {
		return nil, fault.FailedPrecondition("STATE_UNUSABLE", "cannot make the directory for keys in %s", dir).Because(err)
	}
	return &Keys{dir: dir}, nil
}

func (k *Keys) path(persona string) string {
	if persona == "" {
		return filepath.Join(k.dir, "identity.pem")
	}
	return filepath.Join(k.dir, "personas", filepath.Base(persona)+".pem")
}

// Load returns the seed of a persona's key and when it was made; fs.ErrNotExist when there is none.
func (k *Keys) Load(persona string) ([]byte, time.Time, error) {
	path := k.path(persona)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, err
	}
	if err != nil {
		return nil, time.Time{}, fault.FailedPrecondition("KEY_UNREADABLE", "cannot read the key file %s", path).Because(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, fault.FailedPrecondition("KEY_UNREADABLE", "cannot read the key file %s", path).Because(err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, time.Time{}, fault.FailedPrecondition("KEY_EXPOSED", "other users can read the key file %s (mode %o): if nobody has, chmod 600 it, else remove it and take a new identity", path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, time.Time{}, fault.FailedPrecondition("KEY_UNREADABLE", "cannot read the key file %s", path).Because(err)
	}
	seed, err := parse(b)
	if err != nil {
		return nil, time.Time{}, fault.FailedPrecondition("KEY_BROKEN", "the key file %s is torn or no Ed25519 key: restore it from a backup, or remove it to take a new identity", path).Because(err)
	}
	return seed, info.ModTime(), nil
}

func parse(b []byte) ([]byte, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != pemType || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("not one PEM block of a private key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T", key)
	}
	return ed.Seed(), nil
}

// Create makes a key and returns once it is on disk, or returns the one that is there.
func (k *Keys) Create(persona string) ([]byte, time.Time, error) {
	seed, at, err := k.Load(persona)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return seed, at, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, time.Time{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, time.Time{}, err
	}
	path := k.path(persona)
	if err := home.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), 0o600); err != nil {
		return nil, time.Time{}, fault.FailedPrecondition("KEY_UNWRITABLE", "cannot write the key file %s: is the disk full?", path).Because(err)
	}
	return key.Seed(), time.Now(), nil
}

// Remove forgets a persona's key.
func (k *Keys) Remove(persona string) error {
	path := k.path(persona)
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return fault.FailedPrecondition("KEY_UNWRITABLE", "cannot remove the key file %s", path).Because(err)
	}
	return nil
}

// List names the personas with keys, the node's own excluded.
func (k *Keys) List() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(k.dir, "personas"))
	if err != nil {
		return nil, fault.FailedPrecondition("STATE_UNUSABLE", "cannot list the key files in %s", k.dir).Because(err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".pem"); ok && e.Type().IsRegular() && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names, nil
}

// ClaimMode marks a directory with the mode that it is used in, once and for all: the identity of a home that was seen in the open must
// never be used anonymously, nor the other way round.
func ClaimMode(dir, mode string) error {
	path := filepath.Join(dir, "mode")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := home.WriteFile(path, []byte(mode+"\n"), 0o600); err != nil {
			return fault.FailedPrecondition("STATE_UNUSABLE", "cannot write %s: is the disk full?", path).Because(err)
		}
		return nil
	}
	if err != nil {
		return fault.FailedPrecondition("STATE_UNUSABLE", "cannot read %s", path).Because(err)
	}
	if was := strings.TrimSpace(string(b)); was != mode {
		return fault.FailedPrecondition("MODE_MISMATCH", "this home has been used in %.20q mode (%s says so) and cannot be used in %s mode: take another home", was, path, mode)
	}
	return nil
}
