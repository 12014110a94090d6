package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
	"github.com/shallot-net/shallot/kit/home"
)

// maxOnions bounds what is read: a service has about 200 bytes, and no tor has a thousand.
const maxOnions = 1 << 20

// Onions keeps which onion services were made, and a digest of what was asked for, in one file. It has no keys, but addresses: others cannot read it.
type Onions struct{ path string }

type onionRecord struct {
	Request     string    `json:"request"`
	PublishedAt time.Time `json:"published_at,omitzero"`
}

// NewOnions keeps it in DIR/services.json.
func NewOnions(dir string) *Onions { return &Onions{filepath.Join(dir, "services.json")} }

// Load returns what was saved last; nothing when there is no file. A file that cannot be read is an error that names it.
func (o *Onions) Load() (map[string]onions.Record, error) {
	f, err := os.Open(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxOnions))
	if err != nil {
		return nil, err
	}
	var read map[string]onionRecord
	if err := json.Unmarshal(data, &read); err != nil {
		return nil, fmt.Errorf("%s is torn", o.path) // without the cause, which may quote it
	}
	out := make(map[string]onions.Record, len(read))
	for id, r := range read {
		if onionsvc.CheckID(id) != nil {
			return nil, fmt.Errorf("%s is torn: it has a name that is no onion service's", o.path)
		}
		out[id] = onions.Record{Digest: r.Request, PublishedAt: r.PublishedAt}
	}
	return out, nil
}

// Save replaces the file: whoever is killed meanwhile leaves the former one.
func (o *Onions) Save(records map[string]onions.Record) error {
	out := make(map[string]onionRecord, len(records))
	for id, r := range records {
		out[id] = onionRecord{Request: r.Digest, PublishedAt: r.PublishedAt}
	}
	data, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return home.WriteFile(o.path, data, 0o600)
}
