package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/shallot-net/shallot/test/internal/dev"
)

// module makes a part with a licence file of some text.
func module(t *testing.T, path, file, text string) *part {
	t.Helper()
	p := &part{path: path, version: "v1.0.0", dir: t.TempDir()}
	if file != "" {
		if err := os.WriteFile(filepath.Join(p.dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

const mit = `MIT License

Copyright (c) 2020 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`

func TestWhatMayNotBeGivenAwayIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		p    *part
		want string // of the error; empty: none
	}{
		"a licence that is allowed": {module(t, "example.org/a", "LICENSE", mit), ""},
		"another name of the file":  {module(t, "example.org/a", "licence.md", mit), ""},
		"no file":                   {module(t, "example.org/a", "", ""), "no licence is found"},
		"a text that says nothing":  {module(t, "example.org/a", "LICENSE", "All rights reserved."), "no licence is found"},
		"another than was read":     {module(t, "kernel.org/pub/linux/libs/security/libcap/psx", "License", "GPL from now on"), "no licence is found"},
		"no sources":                {&part{path: "example.org/a"}, "sources are not found"},
	} {
		err := c.p.read()
		if err == nil {
			err = c.p.judge()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for licence, want := range map[string]bool{"MIT": true, "GPL-3.0": false, "AGPL-3.0": false, llvm: true, "CC-BY-4.0": false} {
		if err := (&part{path: "example.org/a", licences: []string{licence}}).judge(); (err == nil) != want {
			t.Errorf("%s: %v", licence, err)
		}
	}
	if err := (&part{path: "example.org/a", licences: []string{"MIT", "GPL-2.0"}}).judge(); err == nil {
		t.Error("one that is allowed excuses one that is not")
	}
}

func TestProgramsOfThisProject(t *testing.T) {
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob(filepath.Join(bin, "shallot*"))
	if err != nil || len(programs) < 9 {
		t.Fatal(programs, err)
	}
	dirs := []string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		if err := run(t.Context(), dir, programs); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range append(programs, "LICENCES.md") {
		name := filepath.Base(p) + ".cdx.json"
		if p == "LICENCES.md" {
			name = p
		}
		first, err := os.ReadFile(filepath.Join(dirs[0], name))
		if err != nil {
			t.Fatal(err)
		}
		if second, err := os.ReadFile(filepath.Join(dirs[1], name)); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s is another one the second time, %v", name, err)
		}
		if name == p {
			if !strings.Contains(string(first), "| google.golang.org/grpc | v") || strings.Contains(string(first), "| "+own) {
				t.Error("the page lacks a module, or has one of this project's")
			}
			continue
		}
		var b cdx.BOM
		if err := cdx.NewBOMDecoder(bytes.NewReader(first), cdx.BOMFileFormatJSON).Decode(&b); err != nil {
			t.Fatal(err)
		}
		has := map[string]bool{}
		for _, c := range *b.Components {
			has[c.Name] = true
			if c.Licenses == nil || len(*c.Licenses) == 0 || c.Version == "" || c.PackageURL == "" {
				t.Errorf("%s: %+v", name, c)
			}
		}
		if !has[stdlib] || !has["google.golang.org/grpc"] {
			t.Errorf("%s has %d components", name, len(has))
		}
	}
	if err := run(t.Context(), t.TempDir(), []string{"main.go"}); err == nil {
		t.Error("what is no program is taken for one")
	}
}
