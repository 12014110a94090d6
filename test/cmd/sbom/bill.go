package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// bill is one program's. It holds no time and no random number: of one program it is always the same.
func bill(b *bytes.Buffer, program string, parts []*part) error {
	x := cdx.NewBOM()
	root := cdx.Component{BOMRef: program, Type: cdx.ComponentTypeApplication, Name: program, Licenses: licences([]string{"Apache-2.0"})}
	x.Metadata = &cdx.Metadata{Component: &root}
	var components []cdx.Component
	var refs []string
	for _, p := range parts {
		ref := "pkg:golang/" + p.path + "@" + p.version
		c := cdx.Component{BOMRef: ref, Type: cdx.ComponentTypeLibrary, Name: p.path, Version: p.version, PackageURL: ref, Licenses: licences(p.licences)}
		if p.sum != "" {
			c.Properties = &[]cdx.Property{{Name: "go:sum", Value: p.sum}}
		}
		components = append(components, c)
		refs = append(refs, ref)
	}
	slices.SortFunc(components, func(a, b cdx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
	slices.Sort(refs)
	x.Components = &components
	x.Dependencies = &[]cdx.Dependency{{Ref: program, Dependencies: &refs}}
	return cdx.NewBOMEncoder(b, cdx.BOMFileFormatJSON).SetPretty(true).Encode(x)
}

func licences(ids []string) *cdx.Licenses {
	var l cdx.Licenses
	for _, id := range ids {
		if id == llvm { // of expressions there is one at most, and alone
			return &cdx.Licenses{{Expression: llvm}}
		}
		if slices.Contains(allowed, id) || strings.HasPrefix(id, "CC-") {
			l = append(l, cdx.LicenseChoice{License: &cdx.License{ID: id}})
		} else { // not a licence of SPDX's list by itself
			l = append(l, cdx.LicenseChoice{License: &cdx.License{Name: id}})
		}
	}
	return &l
}

// page is the table of all modules, and the texts.
func page(b *bytes.Buffer, all []*part) {
	fmt.Fprintf(b, "# What the programs are made of\n\n%d modules beside this project's own, which is under Apache-2.0. `shallot-executor-wasm` also has the library of wasmtime (Apache-2.0 WITH LLVM-exception), which its\n"+
		"module brings compiled; what that is made of is told by its own project.\n\n| module | version | licence | in |\n| --- | --- | --- | --- |\n", len(all))
	programs := map[string]bool{}
	for _, p := range all {
		for _, n := range p.programs {
			programs[n] = true
		}
	}
	for _, p := range all {
		in := strings.Join(p.programs, ", ")
		if len(p.programs) == len(programs) {
			in = "all"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", p.path, p.version, strings.Join(p.licences, ", "), in)
	}
	// The same text is there once, under all modules that have it.
	var order []string
	under := map[string][]string{}
	for _, p := range all {
		for _, d := range p.texts {
			if under[d.text] == nil {
				order = append(order, d.text)
			}
			under[d.text] = append(under[d.text], p.path+" ("+d.name+")")
		}
	}
	b.WriteString("\n# Texts\n")
	for _, t := range order {
		fence := "```"
		for strings.Contains(t, fence) {
			fence += "`"
		}
		fmt.Fprintf(b, "\n%s:\n\n%s\n%s\n%s\n", strings.Join(under[t], ", "), fence, t, fence)
	}
}
