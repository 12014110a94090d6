// Command licences reads the bills of materials of the programs (CycloneDX, JSON), writes one page of what they are made of and under which
// licences, and refuses what may not be in a program that is given away under Apache-2.0.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// allowed are licences whose terms a list of names and texts meets. MPL-2.0 binds changed files only, and none is changed here.
var allowed = []string{"0BSD", "Apache-2.0", "BlueOak-1.0.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "MPL-2.0", "Unlicense", "Zlib"}

// own are the modules of this project, which one licence covers.
const own = "github.com/shallot-net/shallot"

// known are licences of modules in whose texts the detector does not find them; each was read.
var known = map[string]string{}

// maxBOM bounds one bill.
const maxBOM = 64 << 20

type bom struct {
	Components []struct {
		Name, Version string
		Licenses      []struct {
			License    struct{ ID, Name string }
			Expression string
		}
	}
}

// part is one module, and the programs that it is in.
type part struct {
	name, version string
	licences      []string
	programs      []string
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(paths []string, out io.Writer) error {
	if len(paths) == 0 {
		return errors.New("give the bills of materials: licences dist/sbom/*.json")
	}
	parts := map[string]*part{}
	for _, path := range paths {
		if err := read(path, parts); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	sorted := make([]*part, 0, len(parts))
	for _, p := range parts {
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, func(a, b *part) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.version, b.version))
	})
	fmt.Fprintf(out, "# What the programs are made of\n\n%d modules beside this project's own, which is under Apache-2.0.\n\n| module | version | licence | in |\n| --- | --- | --- | --- |\n", len(sorted))
	var bad []error
	for _, p := range sorted {
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", p.name, p.version, strings.Join(p.licences, ", "), strings.Join(p.programs, ", "))
		bad = append(bad, p.judge())
	}
	return errors.Join(bad...)
}

func read(path string, parts map[string]*part) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var b bom
	if err := json.NewDecoder(io.LimitReader(f, maxBOM)).Decode(&b); err != nil {
		return err
	}
	if len(b.Components) == 0 {
		return errors.New("it lists nothing")
	}
	program := strings.TrimSuffix(filepath.Base(path), ".json")
	for _, c := range b.Components {
		if c.Name == own || strings.HasPrefix(c.Name, own+"/") {
			continue
		}
		p := parts[c.Name+"@"+c.Version]
		if p == nil {
			p = &part{name: c.Name, version: c.Version}
			for _, l := range c.Licenses {
				p.licences = append(p.licences, cmp.Or(l.License.ID, l.License.Name, l.Expression))
			}
			if len(p.licences) == 0 && known[c.Name] != "" {
				p.licences = []string{known[c.Name]}
			}
			parts[c.Name+"@"+c.Version] = p
		}
		if !slices.Contains(p.programs, program) {
			p.programs = append(p.programs, program)
		}
	}
	return nil
}

// judge: of several licences that the detector sees in one module one suffices, since it lists what a choice is between and what it takes for alike.
func (p *part) judge() error {
	if len(p.licences) == 0 {
		return fmt.Errorf("%s %s: no licence is found; read it and add it to known, or do without the module", p.name, p.version)
	}
	if !slices.ContainsFunc(p.licences, func(l string) bool { return slices.Contains(allowed, l) }) {
		return fmt.Errorf("%s %s is under %s, which is not among those allowed (%s)", p.name, p.version, strings.Join(p.licences, ", "), strings.Join(allowed, ", "))
	}
	return nil
}
