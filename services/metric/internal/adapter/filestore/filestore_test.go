package filestore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/metric/internal/adapter/filestore"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/app/versionstest"
)

func open(t *testing.T, path string) *filestore.Versions {
	t.Helper()
	v, err := filestore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestConformance(t *testing.T) {
	versionstest.Run(t, func(t *testing.T) versionstest.Store {
		path := filepath.Join(t.TempDir(), "version")
		return versionstest.Store{Versions: open(t, path), Reopen: func() app.Versions { return open(t, path) }}
	})
}

func TestADamagedFileIsRefusedAndKept(t *testing.T) {
	for _, content := range []string{"", "-5", "12 34", "nonsense", strings.Repeat("9", 100)} {
		path := filepath.Join(t.TempDir(), "version")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := filestore.Open(path)
		if err == nil || fault.From(err).Reason != "STORE_CORRUPT" || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: Open = %v", content, err)
		}
		if b, _ := os.ReadFile(path); string(b) != content {
			t.Errorf("%q was changed to %q", content, b)
		}
	}
}

func TestAFailedWriteGivesNothingOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	v := open(t, filepath.Join(dir, "version"))
	if first, err := v.Reserve(t.Context(), 1, 0); err == nil || fault.From(err).Reason != "STORE_FAILED" {
		t.Errorf("Reserve = %d, %v", first, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if first, err := v.Reserve(t.Context(), 1, 0); err != nil || first != 1 {
		t.Errorf("Reserve = %d, %v", first, err)
	}
}
