package disk

import (
	"io"
	"io/fs"
	"os"
)

// File is what a pack needs of a file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Datasync returns when the bytes, and the length, are on disk.
	Datasync() error
	// StartWriteback is a hint: begin writing, wait for nothing.
	StartWriteback(off, n int64)
}

// FS is the file system that packs are on: the seam where tests make disks full and syncs fail.
type FS interface {
	Create(path string) (File, error)
	Open(path string) (File, error)
	OpenAppend(path string) (File, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	Remove(path string) error
	SyncDir(path string) error
	// Free is how many bytes may still be written below path.
	Free(path string) (uint64, error)
}

type osFS struct{}

type osFile struct{ *os.File }

func wrap(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Create(path string) (File, error) {
	return wrap(os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600))
}
func (osFS) Open(path string) (File, error)             { return wrap(os.Open(path)) }
func (osFS) OpenAppend(path string) (File, error)       { return wrap(os.OpenFile(path, os.O_RDWR, 0o600)) }
func (osFS) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (osFS) Remove(path string) error                   { return os.Remove(path) }

func (osFS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
