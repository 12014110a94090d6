package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shallot-net/shallot/broker/internal/domain/book"
	"github.com/shallot-net/shallot/kit/home"
)

// maxBook bounds what is read: a full book has about 80 KB.
const maxBook = 1 << 20

// Book keeps the peers that were reached in one file.
type Book struct{ path string }

// NewBook keeps it in DIR/peers.json.
func NewBook(dir string) *Book { return &Book{filepath.Join(dir, "peers.json")} }

// Load returns what was saved last; nothing when there is no file. A file that cannot be read is an error that names it.
func (b *Book) Load() ([]book.Entry, error) {
	f, err := os.Open(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBook))
	if err != nil {
		return nil, err
	}
	var out []book.Entry
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("%s is torn: %w", b.path, err)
	}
	return out, nil
}

// Save replaces the file: whoever is killed meanwhile leaves the former one.
func (b *Book) Save(entries []book.Entry) error {
	data, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	return home.WriteFile(b.path, data, 0o600)
}
