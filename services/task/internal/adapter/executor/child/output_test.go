package child

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// A program may make files that no result can name. That is its own failure, not this provider's, and the next run finds nothing of them.
func TestBadNamesAreTheProgramsFailure(t *testing.T) {
	for _, name := range []string{"a\nb", "\xff", strings.Repeat("d/", 70) + "f", "d/" + strings.Repeat("long/", 250) + "f"} {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := errors.Join(root.MkdirAll(filepath.Dir(name), 0o700), root.WriteFile(name, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
		out, err := openOut(dir)
		if err != nil {
			t.Fatal(err)
		}
		var bad *badName
		if err := out.send(newOutput()); !errors.As(err, &bad) || !utf8.ValidString(bad.Error()) || strings.Contains(bad.Error(), "\n") || len(bad.Error()) > 1000 {
			t.Errorf("%.20q: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%.20q: %v is left, %v", name, left, err)
		}
		out.dir.Close()
		out.root.Close()
	}
}
