package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
)

func TestHostsAreToldApart(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	named := func() (string, error) { return "machine", nil }
	ids := map[string]bool{}
	for _, path := range []string{write("one", "7f0c\n"), write("two", "91ab\n"), filepath.Join(dir, "none")} {
		id, err := idOf(path, named)
		if err != nil || len(id) != 32 || ids[id] {
			t.Errorf("%s is %q, %v", path, id, err)
		}
		ids[id] = true
		if again, _ := idOf(path, named); again != id {
			t.Errorf("%s is %q and then %q", path, id, again)
		}
	}
	for _, c := range []struct {
		path string
		name func() (string, error)
	}{{write("empty", "\n"), named}, {filepath.Join(dir, "none"), func() (string, error) { return "", errors.New("no name") }}} {
		if _, err := idOf(c.path, c.name); fault.From(err).Reason != "HOST_UNKNOWN" {
			t.Errorf("%s: %v", c.path, err)
		}
	}
}
