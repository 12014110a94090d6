// Command reference makes a page of Markdown out of the OpenAPI document. Run by `make reference`, in gateway/.
package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

const (
	document = "internal/openapi/openapi.json"
	out      = "../docs/reference/rest.md"
)

func main() {
	page, err := page(document)
	if err == nil {
		err = os.WriteFile(out, page, 0o644) //nolint:gosec // for everybody
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

// methods in the order in which a path has them.
var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

func page(from string) ([]byte, error) {
	doc, err := openapi3.NewLoader().LoadFromFile(from)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# REST\n\n%s\n\nThe gateway gives the same as OpenAPI at `/openapi.json`, and as a page at `/api`. Every call but those of health wants `Authorization: Bearer TOKEN`, with the token that `shallot node` names the file of. "+
		"What goes wrong is answered with a [Problem](#problem), whose `reason` is one of [errors.md](errors.md). Written by `make reference`: change the comments in [proto/](../../proto) or `gateway/api`.\n\n", doc.Info.Description)
	b.WriteString("| call | | |\n| --- | --- | --- |\n")
	each(doc, func(path, method string, op *openapi3.Operation) {
		fmt.Fprintf(&b, "| [%s](#%s) | `%s %s` | %s |\n", op.OperationID, strings.ToLower(op.OperationID), method, path, cell(op.Summary))
	})
	each(doc, func(path, method string, op *openapi3.Operation) { operation(&b, path, method, op) })
	b.WriteString("\n# Schemas\n")
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		schema(&b, name, doc.Components.Schemas[name].Value)
	}
	return b.Bytes(), nil
}

func each(doc *openapi3.T, fn func(path, method string, op *openapi3.Operation)) {
	for _, path := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		operations := doc.Paths.Value(path).Operations()
		for _, m := range methods {
			if op := operations[m]; op != nil {
				fn(path, m, op)
			}
		}
	}
}

func operation(b *bytes.Buffer, path, method string, op *openapi3.Operation) {
	fmt.Fprintf(b, "\n## %s\n\n`%s %s`\n", op.OperationID, method, path)
	if text := cmp.Or(op.Description, op.Summary); text != "" {
		fmt.Fprintf(b, "\n%s\n", escape(text))
	}
	if len(op.Parameters) > 0 {
		b.WriteString("\n| parameter | in | type | |\n| --- | --- | --- | --- |\n")
	}
	for _, p := range op.Parameters {
		fmt.Fprintf(b, "| `%s`%s | %s | %s | %s |\n", p.Value.Name, required(p.Value.Required), p.Value.In, kind(p.Value.Schema), cell(p.Value.Description))
	}
	if op.RequestBody != nil {
		body := op.RequestBody.Value
		fmt.Fprintf(b, "\nBody%s: %s\n", required(body.Required), content(body.Content, body.Description))
	}
	codes := op.Responses.Map()
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		if code == "default" { // a Problem, everywhere
			continue
		}
		r := codes[code].Value
		description := ""
		if r.Description != nil {
			description = *r.Description
		}
		fmt.Fprintf(b, "\nAnswer %s: %s\n", code, content(r.Content, description))
	}
}

func required(is bool) string {
	if is {
		return " (required)"
	}
	return ""
}

func content(c openapi3.Content, description string) string {
	var parts []string
	for _, mime := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, kind(c[mime].Schema)+" as `"+mime+"`")
	}
	out := strings.Join(parts, ", or ")
	if description = oneLine(description); description != "" && !strings.HasPrefix(description, "A successful response") {
		return strings.TrimPrefix(out+"; "+escape(description), "; ")
	}
	return cmp.Or(out, "nothing")
}

// kind is a type in words, with a way to it.
func kind(s *openapi3.SchemaRef) string {
	if s == nil || s.Value == nil {
		return ""
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	}
	v := s.Value
	switch {
	case len(v.AllOf) == 1:
		return kind(v.AllOf[0])
	case v.Type.Is("array"):
		return "list of " + kind(v.Items)
	case v.Type.Is("object") && v.AdditionalProperties.Schema != nil:
		return "map to " + kind(v.AdditionalProperties.Schema)
	case v.Type.Is("object") && v.Properties["result"] != nil: // a stream of JSON lines
		return "lines, each with `result`, a " + kind(v.Properties["result"]) + ", or at last `error`, a " + kind(v.Properties["error"])
	case v.Type == nil:
		return "anything"
	}
	word := strings.Join(v.Type.Slice(), " or ")
	if v.Format != "" {
		word += " (" + v.Format + ")"
	}
	return word
}

func schema(b *bytes.Buffer, name string, s *openapi3.Schema) {
	fmt.Fprintf(b, "\n## %s\n", name)
	if s.Description != "" || s.Title != "" {
		fmt.Fprintf(b, "\n%s\n", escape(strings.TrimSpace(s.Title+"\n\n"+s.Description)))
	}
	if len(s.Enum) > 0 {
		fmt.Fprintf(b, "\nOne of `%s`.\n", strings.Trim(fmt.Sprint(s.Enum), "[]"))
	}
	if len(s.Properties) > 0 {
		b.WriteString("\n| field | type | |\n| --- | --- | --- |\n")
	}
	for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[field]
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", field, kind(p), cell(strings.TrimSpace(p.Value.Title+" "+described(p))))
	}
}

// described is the field's own description: that of a type that it refers to is with the type.
func described(p *openapi3.SchemaRef) string {
	if p.Ref != "" {
		return ""
	}
	return p.Value.Description
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func escape(s string) string { return strings.NewReplacer("<", "&lt;", "|", "\\|").Replace(s) }

func cell(s string) string { return escape(oneLine(s)) }
