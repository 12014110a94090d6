package treepath

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Hostile are names that a peer may send and nobody may use.
var hostile = []string{
	"", ".", "..", "/", "/etc/passwd", "../x", "a/../../x", "a/..", "a/.", "./a", "a//b", "a/", "//a", "a/./b", "a/b/..", "a/../b",
	"a\x00b", "a\nb", "a\x1b[31mb", "a\x7fb", "a\u0085b", "\xff", "a/\xc3\x28", "a\tb",
	strings.Repeat("n", MaxName+1), "a/" + strings.Repeat("n", MaxName+1) + "/b",
	strings.Repeat("d/", MaxDepth) + "f", strings.Repeat("dir/", MaxPath/4) + "f", strings.Repeat("../", 10) + "f",
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, p := range hostile {
		var e Error
		if err := Check(p); !errors.As(err, &e) || e == "" {
			t.Errorf("%q: %v", Shown(p), err)
		}
	}
	for _, p := range []string{
		"a", "a/b", ".hidden", "a/.b/c", "..a", "a..", "a/..b", "...", "in put.txt", "å/ß", "C:\\x", "-rf", "~", "$HOME", strings.Repeat("n", MaxName),
		strings.Repeat("d/", MaxDepth-1) + "f",
	} {
		if err := Check(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestCheckAll(t *testing.T) {
	t.Parallel()
	many := make([]string, MaxFiles+1)
	for i := range many {
		many[i] = "d/" + strconv.Itoa(i)
	}
	if err := CheckAll(many[1:]); err != nil {
		t.Error(err)
	}
	if err := CheckAll([]string{"a/b", "a/c", "a.b", "ab"}); err != nil {
		t.Error(err)
	}
	for says, paths := range map[string][]string{
		"there are 1001 files":            many,
		"is there twice":                  {"a/b", "c", "a/b"},
		`"a" is a file, and a directory`:  {"a/b/c", "a"},
		`"a/b" is a file, and a direct`:   {"a/b", "a/b/c/d"},
		`the path "../x" cannot be used:`: {"a", "../x"},
	} {
		if err := CheckAll(paths); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v instead of %q", err, says)
		}
	}
}

// FuzzCheck: what Check lets through stays below its directory, for the operating system too.
func FuzzCheck(f *testing.F) {
	for _, p := range hostile {
		f.Add(p)
	}
	f.Add("a/b.txt")
	f.Add("..a/...")
	dir := f.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(t *testing.T, p string) {
		if Check(p) != nil {
			return
		}
		if !filepath.IsLocal(p) || filepath.Clean(p) != p || !strings.HasPrefix(filepath.Join(dir, p), dir+"/") {
			t.Fatalf("%q leads out", p)
		}
		if err := root.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if err := root.WriteFile(p, nil, 0o600); err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		first, _, _ := strings.Cut(p, "/")
		if err := root.RemoveAll(first); err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Fatalf("%q left %v, %v", p, left, err)
		}
	})
}
