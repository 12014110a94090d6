package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func bill(t *testing.T, name, components string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(`{"components": [`+components+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	good = `{"name": "example.org/a", "version": "v1.0.0", "licenses": [{"license": {"id": "MIT"}}]}`
	ours = `{"name": "github.com/shallot-net/shallot/kit", "version": "v0.0.0"}`
)

func TestAPageOfAllPrograms(t *testing.T) {
	var out strings.Builder
	if err := run([]string{bill(t, "one.json", good+","+ours), bill(t, "two.json", good)}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "| example.org/a | v1.0.0 | MIT | one, two |") || strings.Contains(out.String(), "shallot-net") || !strings.Contains(out.String(), "1 modules") {
		t.Error(out.String())
	}
}

func TestWhatMayNotBeInAProgramIsRefused(t *testing.T) {
	for want, components := range map[string]string{
		"GPL-3.0-only, which is not": `{"name": "example.org/b", "version": "v1.0.0", "licenses": [{"license": {"id": "GPL-3.0-only"}}]}`,
		"no licence is found":        `{"name": "example.org/c", "version": "v1.0.0"}`,
		"lists nothing":              ``,
	} {
		var out strings.Builder
		if err := run([]string{bill(t, "one.json", components)}, &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := run(nil, &strings.Builder{}); err == nil {
		t.Error("no bills are no error")
	}
}
