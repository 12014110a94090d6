package files_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/files"
	"github.com/shallot-net/shallot/broker/internal/app/onions"
)

func TestOnions(t *testing.T) {
	const id = "5yy7qpeiu4jbtjx47g7obwu3yitcaweplik2mfcvknie36letzom76ad"
	dir := t.TempDir()
	o := files.NewOnions(dir)
	if got, err := o.Load(); len(got) != 0 || err != nil {
		t.Errorf("of no file: %v %v", got, err)
	}
	want := map[string]onions.Record{id: {Digest: "abc", PublishedAt: time.Unix(1700000000, 0).UTC()}}
	if err := o.Save(want); err != nil {
		t.Fatal(err)
	}
	if got, err := o.Load(); !maps.Equal(got, want) || err != nil {
		t.Errorf("%v %v", got, err)
	}
	path := filepath.Join(dir, "services.json")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := o.Load(); err == nil || len(got) != 0 || strings.Contains(err.Error(), id) || !strings.Contains(err.Error(), path) {
			t.Fatalf("of %d bytes: %v %v", n, got, err)
		}
	}
	for _, text := range []string{`{"x":{"request":"a"}}`, `[1]`, "null\x00"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Load(); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
