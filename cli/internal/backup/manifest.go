package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// Format is of the archives that this version writes. It reads those up to it. A field more in the manifest is a new format: its sum says nothing of fields that a reader does not know.
const Format = 1

// Names in an archive.
const (
	manifestName = "manifest.json"
	unfinished   = "UNFINISHED" // there until the manifest is
	homeFolder   = "home"
	databases    = "postgres"
)

const (
	maxManifest = 512 << 20 // bytes
	maxFiles    = 1_000_000
	maxDepth    = 16 // of folders in a home
)

// Manifest says what an archive holds. Without it there is none: it is written last.
type Manifest struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`      // of this backup, random
	Version string    `json:"version"` // of the program that wrote it
	MadeAt  time.Time `json:"made_at"` // when it began
	Home    string    `json:"home"`    // where the node lived
	Role    string    `json:"role,omitempty"`
	Mode    string    `json:"mode,omitempty"`
	// Database is nil where all stores are files.
	Database *Database `json:"database,omitempty"`
	Files    []File    `json:"files"`
	// Sum is the SHA-256 of this manifest without it.
	Sum string `json:"sum,omitempty"`
}

// Database is what the archive holds of a PostgreSQL.
type Database struct {
	ServerVersion string   `json:"server_version"`
	Schemas       []string `json:"schemas"`
}

// File is one of an archive.
type File struct {
	Path     string    `json:"path"` // in the archive, with slashes
	Size     int64     `json:"size"` // bytes
	SHA256   string    `json:"sha256"`
	Modified time.Time `json:"modified"`
}

// HomeIn is where an archive has the files of the home.
func HomeIn(dir string) string { return filepath.Join(dir, homeFolder) }

// Size is of all files together, in bytes.
func (m *Manifest) Size() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// find finds a file by its path in the archive; nil when there is none.
func (m *Manifest) find(path string) *File {
	i, found := slices.BinarySearchFunc(m.Files, path, func(f File, p string) int { return strings.Compare(f.Path, p) })
	if !found {
		return nil
	}
	return &m.Files[i]
}

func (m Manifest) sum() (string, error) {
	m.Sum = ""
	b, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// write makes the archive one.
func (m *Manifest) write(dir string) (err error) {
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	m.MadeAt = m.MadeAt.UTC().Round(0)
	if m.Sum, err = m.sum(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	return home.WriteFile(filepath.Join(dir, manifestName), append(b, '\n'), 0o600)
}

func damaged(path, what string, args ...any) error {
	return fault.FailedPrecondition("BACKUP_DAMAGED", "%s %s: it was changed or damaged after the backup; take another copy of it, or another backup", path, fmt.Sprintf(what, args...))
}

// Read reads an archive's manifest, and checks that it is whole and one that this version can read. The files are not looked at: see Check.
func Read(dir string) (*Manifest, error) {
	if err := trusted(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, manifestName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(dir, unfinished)); err == nil {
			return nil, fault.FailedPrecondition("BACKUP_UNFINISHED", "the backup in %s was broken off and is not whole: remove it, and take another one", dir)
		}
		return nil, fault.NotFound("BACKUP_NOT_FOUND", "there is no backup in %s: it has no %s", dir, manifestName)
	}
	if err != nil {
		return nil, unusable(path, "read", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, unusable(path, "read", err)
	}
	if len(b) > maxManifest {
		return nil, damaged(path, "is larger than %d MiB", maxManifest>>20)
	}
	var head struct {
		Format  int    `json:"format"`
		Version string `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, damaged(path, "cannot be read")
	}
	if head.Format > Format {
		return nil, fault.FailedPrecondition("BACKUP_NEWER", "the backup in %s was made by a newer version (%.64s; its format is %d, this program knows up to %d): restore it with that version", dir, head.Version, head.Format, Format)
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil || m.Format < 1 {
		return nil, damaged(path, "cannot be read")
	}
	if sum, err := m.sum(); err != nil || sum != m.Sum {
		return nil, damaged(path, "does not have the checksum that it says")
	}
	return m, m.check(path)
}

// check has what a program that writes by these paths must be sure of.
func (m *Manifest) check(path string) error {
	if len(m.Files) > maxFiles {
		return damaged(path, "has more than %d files", maxFiles)
	}
	for i, f := range m.Files {
		folder, rest, _ := strings.Cut(f.Path, "/")
		switch {
		case !filepath.IsLocal(f.Path) || filepath.ToSlash(filepath.Clean(f.Path)) != f.Path, folder != homeFolder && folder != databases, rest == "", f.Size < 0:
			return damaged(path, "names the file %.200q, which no backup has", f.Path)
		case i > 0 && m.Files[i-1].Path >= f.Path:
			return damaged(path, "does not have its files in order")
		}
	}
	return nil
}

// trusted refuses an archive that somebody else could change: it becomes a node's keys.
func trusted(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.NotFound("BACKUP_NOT_FOUND", "there is no backup in %s: no such directory", dir)
	}
	if err != nil {
		return unusable(dir, "read", err)
	}
	if !info.IsDir() {
		return fault.NotFound("BACKUP_NOT_FOUND", "there is no backup in %s: it is no directory", dir)
	}
	if owner, ok := ownedBy(info); !ok || info.Mode().Perm()&0o022 != 0 {
		return fault.FailedPrecondition("BACKUP_UNSAFE", "%s is not a directory that only this user can write to (its owner is user %d, its mode %o): copy it to one that is, with 'cp -r', and chmod 700 that", dir, owner, info.Mode().Perm())
	}
	return nil
}

// unusable names a path that the file system refuses, and what would help.
func unusable(path, doing string, err error) error {
	return fault.FailedPrecondition("BACKUP_UNUSABLE", "cannot %s %s: see who owns it and its directory, and their modes", doing, path).Because(reason(err))
}

// reason is an error without the path, which the message has.
func reason(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}
