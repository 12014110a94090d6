package suite

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A directory that one node stored comes out whole at another, and who keeps what is told.
func TestDirectoriesAsContent(t *testing.T) {
	n := sharedNetwork(t)
	in, out := filepath.Join(t.TempDir(), "site"), filepath.Join(t.TempDir(), "copy")
	want := map[string]string{"index.html": "<p>hello", "docs/a/large": strings.Repeat("large ", 500_000), "docs/empty": ""}
	for name, text := range want {
		path := filepath.Join(in, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	r := shallot(t, n, consumer, "", "content", "put", in)
	if r.code != 0 {
		t.Fatal(r.stderr)
	}
	cid := strings.TrimSpace(r.stdout)
	if r := shallot(t, n, "provider-1", "", "content", "get", cid, "--output-dir", out); r.code != 0 {
		t.Fatal(r.stderr)
	}
	got := map[string]string{}
	if err := fs.WalkDir(os.DirFS(out), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(out, p))
		got[p] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d files came, of %d, or others", len(got), len(want))
	}
	if r := shallot(t, n, "provider-2", "", "content", "get", cid+"/index.html"); r.code != 0 || r.stdout != want["index.html"] {
		t.Errorf("%+v", r)
	}

	input := filepath.Join(in, "docs", "a", "large")
	if r := shallot(t, n, consumer, "", "run", "wasm", program("probe.wasm"), "--input", input, "--", "read", "large"); r.code != 0 {
		t.Fatal(r.stderr)
	}
	owners := func(args ...string) map[string]uint64 {
		r := shallot(t, n, consumer, "", append([]string{"content", "ls", "--output", "json"}, args...)...)
		var list struct {
			Pins []struct {
				Owner string
				Size  json.Number
			}
		}
		if err := json.Unmarshal([]byte(r.stdout), &list); r.code != 0 || err != nil {
			t.Fatal(err, r.stderr)
		}
		out := map[string]uint64{}
		for _, p := range list.Pins {
			kind, _, _ := strings.Cut(p.Owner, ":")
			size, err := p.Size.Int64()
			if err != nil {
				t.Error(err)
			}
			out[kind] = max(out[kind], uint64(size)) //nolint:gosec // never negative
		}
		return out
	}
	if got := owners(); len(got) != 1 || got["user"] < 3_000_000 {
		t.Errorf("without flags it lists %v", got)
	}
	if got := owners("--all"); got["user"] == 0 || got["share"] < 3_000_000 {
		t.Errorf("with --all it lists %v", got)
	}
	if got := owners("--owner", "share:"); len(got) != 1 || got["share"] == 0 {
		t.Errorf("of shared content it lists %v", got)
	}
}
