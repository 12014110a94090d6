package backup

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/pgstore"
)

// Store is the database of a node's services; none when URL is empty.
type Store struct {
	URL          string // as services have it in store
	PasswordFile string
}

func (s Store) config() pgstore.Config {
	return pgstore.Config{URL: s.URL, PasswordFile: s.PasswordFile}
}

// withStore are the services that may keep their state in a database.
var withStore = []string{"discovery", "metric", "task"}

// maxConfig bounds what is read of a configuration.
const maxConfig = 1 << 20

// StoreOf finds the database in the settings of a home's services: the environment, then config.yaml, as services read them. Two databases are refused: their snapshots would be of two moments.
func StoreOf(dir string, getenv func(string) string) (Store, error) {
	var found Store
	var of string
	sections := sectionsOf(filepath.Join(dir, "config.yaml"))
	for _, service := range withStore {
		setting := func(key string) string {
			if v := getenv("SHALLOT_" + strings.ToUpper(service+"_"+key)); v != "" {
				return v
			}
			v, _ := sections[service][key].(string)
			return v
		}
		s := Store{setting("store"), setting("store_password_file")}
		switch {
		case s.URL == "":
		case found.URL == "":
			found, of = s, service
		case found.URL != s.URL:
			return Store{}, fault.InvalidArgument("STORES_DIFFER", "the services %s and %s have different databases in store, and no backup can be of one moment of both: give the services of a node one database", of, service)
		}
	}
	return found, nil
}

// sectionsOf reads a configuration as far as it can be read: the services say what is wrong with it.
func sectionsOf(path string) (sections map[string]map[string]any) {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil || yaml.Unmarshal(b, &sections) != nil {
		return nil
	}
	return sections
}

// missing tells of services whose state is in no file of the home: a backup without their database would be without their tasks.
func missing(h home.Home) error {
	for service, file := range map[string]string{"task": "task.db", "discovery": "discovery.db", "metric": "version"} {
		dir := filepath.Join(h.Dir, "state", service)
		replicas, _ := filepath.Glob(filepath.Join(dir, "replica-*"))
		ran := len(replicas) > 0 || service != "metric" && exists(filepath.Join(dir, "lock")) // metric makes its file some time after its start
		if ran && !exists(filepath.Join(dir, file)) {
			return fault.FailedPrecondition("STORE_NOT_NAMED", "the %s service of %s has run, and its state is not in %s: name its database with --store, as the service has it", service, h.Dir, filepath.Join(dir, file))
		}
	}
	return nil
}

// database copies all schemas as of one moment.
func (c *copier) database(ctx context.Context, s Store) (*Database, error) {
	c.what = "database"
	now := time.Now()
	e, err := pgstore.Export(ctx, s.config(), func(name string, fill func(io.Writer) error) error {
		return c.write(databases+"/"+name, now, fill)
	})
	if err != nil {
		return nil, err
	}
	return &Database{ServerVersion: e.ServerVersion, Schemas: e.Schemas}, nil
}

// sameKind refuses to bring stores back as another kind than they were.
func (m *Manifest) sameKind(s Store) error {
	switch {
	case m.Database != nil && s.URL == "":
		return fault.InvalidArgument("STORE_KIND", "this backup has the stores of %s in PostgreSQL: name an empty database with --store, or in store of the services' settings", strings.Join(m.Database.Schemas, " and "))
	case m.Database == nil && s.URL != "":
		return fault.InvalidArgument("STORE_KIND", "this backup has all stores in files, and store names a PostgreSQL: a store cannot be moved from one to the other; leave --store out, and take store out of the settings")
	case s.URL != "":
		return s.config().Check()
	}
	return nil
}

// importDatabase is the last step of a restore: it is all or nothing, and nobody can undo it.
func (m *Manifest) importDatabase(ctx context.Context, s Store, from string, again bool, tell Progress) error {
	if m.Database == nil {
		return nil
	}
	if i := slices.IndexFunc(m.Database.Schemas, func(name string) bool { return m.find(databases+"/"+name+"/structure.json") == nil }); i >= 0 {
		return damaged(from, "does not have the schema %q that its manifest names", m.Database.Schemas[i])
	}
	if tell == nil {
		tell = func(string, uint64, uint64) {}
	}
	tell("database", 0, 0)
	defer tell("database", 1, 1)
	return pgstore.Import(ctx, s.config(), m.ID, again, m.Database.Schemas, func(name string) (io.ReadCloser, error) {
		f, err := openInside(from, databases+"/"+name)
		if err != nil {
			return nil, archived(filepath.Join(from, databases, name), err)
		}
		return f, nil
	})
}
