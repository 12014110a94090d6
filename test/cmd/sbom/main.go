// Command sbom says what programs are made of, by what the Go linker wrote into them: a bill of materials for each (CycloneDX, JSON), and one page of all modules with their
// licences and the texts that have to go along. It refuses a module whose licence it does not find, or that may not be in a program that is given away under Apache-2.0.
//
// What the linker took is read from the programs themselves, and not from go.mod files, which name more; licences are those of the very sources, checked against the sums that the
// programs carry. No history of a repository and no network is needed where the modules are in the cache.
package main

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// own is the prefix of this project's modules, which one licence covers.
const own = "github.com/shallot-net/shallot"

// stdlib is what the standard library is called in bills.
const stdlib = "stdlib"

// part is one module, and the programs that it is in.
type part struct {
	path, version, sum string
	dir                string // its sources
	licences           []string
	texts              []document
	programs           []string
}

type document struct{ name, text string }

func main() {
	out := flag.String("out", "dist/sbom", "the folder to write to")
	flag.Parse()
	if err := run(context.Background(), *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, programs []string) error {
	if len(programs) == 0 {
		return errors.New("give the programs: sbom -out DIR bin/shallot-node …")
	}
	parts := map[string]*part{}
	byProgram := map[string][]*part{}
	for _, path := range programs {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%s is no program that Go built: %w", path, err)
		}
		name := filepath.Base(path)
		for _, d := range modules(info) {
			p := parts[d.path+"@"+d.version]
			if p == nil {
				p = d
				parts[d.path+"@"+d.version] = p
			}
			p.programs = append(p.programs, name)
			byProgram[name] = append(byProgram[name], p)
		}
	}
	all := make([]*part, 0, len(parts))
	for _, p := range parts {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *part) int { return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.version, b.version)) })
	if err := locate(ctx, all); err != nil {
		return err
	}
	var bad []error
	for _, p := range all {
		bad = append(bad, p.read(), p.judge())
	}
	if err := errors.Join(bad...); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil { //nolint:gosec // for everybody
		return err
	}
	for name, list := range byProgram {
		if err := write(filepath.Join(out, name+".cdx.json"), func(b *bytes.Buffer) error { return bill(b, name, list) }); err != nil {
			return err
		}
	}
	return write(filepath.Join(out, "LICENCES.md"), func(b *bytes.Buffer) error { page(b, all); return nil })
}

func write(path string, fill func(*bytes.Buffer) error) error {
	var b bytes.Buffer
	if err := fill(&b); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644) //nolint:gosec // for everybody
}

// modules are those that are linked in, without this project's own.
func modules(info *debug.BuildInfo) []*part {
	version, _, _ := strings.Cut(info.GoVersion, " ")
	out := []*part{{path: stdlib, version: version}}
	for _, d := range info.Deps {
		if d.Path == own || strings.HasPrefix(d.Path, own+"/") {
			continue
		}
		if d.Replace != nil {
			d = d.Replace
		}
		out = append(out, &part{path: d.Path, version: d.Version, sum: d.Sum})
	}
	return out
}

// locate finds the sources of the modules in the cache, or has them brought there.
func locate(ctx context.Context, all []*part) error {
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	by := map[string]*part{}
	args := []string{"mod", "download", "-json"}
	for _, p := range all {
		if p.path == stdlib {
			if p.version != runtime.Version() {
				return fmt.Errorf("a program was built by %s, and this is %s: build it anew", p.version, runtime.Version())
			}
			p.dir = strings.TrimSpace(string(goroot))
			continue
		}
		by[p.path+"@"+p.version] = p
		args = append(args, p.path+"@"+p.version)
	}
	dir, err := os.MkdirTemp("", "sbom") // outside of every module, so that no go.sum changes
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod"), os.Stderr
	data, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go mod download: %w", err)
	}
	for d := json.NewDecoder(bytes.NewReader(data)); d.More(); {
		var m struct{ Path, Version, Dir, Sum, Error string }
		if err := d.Decode(&m); err != nil {
			return err
		}
		p := by[m.Path+"@"+m.Version]
		switch {
		case p == nil:
		case m.Error != "":
			return fmt.Errorf("%s@%s: %s", m.Path, m.Version, m.Error)
		case m.Sum != p.sum:
			return fmt.Errorf("%s@%s: the sources have the sum %s, and the program was built from %s", m.Path, m.Version, m.Sum, p.sum)
		default:
			p.dir = m.Dir
		}
	}
	return nil
}
