// Package openapi serves the description of the REST API: the OpenAPI document, and a page for people made from it.
package openapi

import (
	"bytes"
	_ "embed" // the document
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
)

//go:embed openapi.json
var document []byte

//go:embed page.html
var pageSource string

//go:embed style.css
var style []byte

// Document returns the OpenAPI 3 document.
func Document() []byte { return document }

// ServeDocument answers with the document.
func ServeDocument(w http.ResponseWriter, _ *http.Request) { write(w, "application/json", document) }

// ServeStyle answers with the page's style sheet.
func ServeStyle(w http.ResponseWriter, _ *http.Request) {
	write(w, "text/css; charset=utf-8", style)
}

// ServePage answers with the page for people. It has no script: the document is rendered once, here.
func ServePage(w http.ResponseWriter, _ *http.Request) {
	html, err := page()
	if err != nil {
		http.Error(w, "the page cannot be rendered", http.StatusInternalServerError)
		return
	}
	write(w, "text/html; charset=utf-8", html)
}

func write(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(body)
}

type operation struct {
	Method, Path, ID, Summary string
	Parameters                []parameter
	Body, Answer              string
	Open                      bool
}

type parameter struct{ Name, In, Type, Description string }

type schema struct {
	Name, Description string
	Fields            []parameter
}

var page = sync.OnceValues(func() ([]byte, error) {
	var doc struct {
		Info struct{ Title, Description, Version string }
		// path, then method
		Paths      map[string]map[string]json.RawMessage
		Components struct {
			Schemas map[string]struct {
				Description string
				Properties  map[string]ref
			}
		}
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, err
	}
	var data struct {
		Title, Description string
		Operations         []operation
		Schemas            []schema
	}
	data.Title, data.Description = doc.Info.Title, doc.Info.Description
	for path, item := range doc.Paths {
		for method, raw := range item {
			op, err := describe(method, path, raw)
			if err != nil {
				return nil, err
			}
			data.Operations = append(data.Operations, op)
		}
	}
	slices.SortFunc(data.Operations, func(a, b operation) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
	for name, s := range doc.Components.Schemas {
		one := schema{Name: name, Description: s.Description}
		for field, f := range s.Properties {
			one.Fields = append(one.Fields, parameter{Name: field, Type: f.name(), Description: f.Description})
		}
		slices.SortFunc(one.Fields, func(a, b parameter) int { return strings.Compare(a.Name, b.Name) })
		data.Schemas = append(data.Schemas, one)
	}
	slices.SortFunc(data.Schemas, func(a, b schema) int { return strings.Compare(a.Name, b.Name) })
	t, err := template.New("page").Parse(pageSource)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, data)
	return out.Bytes(), err
})

// ref is a schema or the name of one.
type ref struct {
	Ref         string `json:"$ref"`
	Type        any    `json:"type"`
	Format      string
	Description string
	Items       *ref
	AllOf       []ref
}

func (r ref) name() string {
	switch {
	case r.Ref != "":
		return r.Ref[strings.LastIndexByte(r.Ref, '/')+1:]
	case len(r.AllOf) == 1:
		return r.AllOf[0].name()
	case r.Items != nil:
		return "list of " + r.Items.name()
	case r.Format != "":
		return r.Format
	}
	s, _ := r.Type.(string)
	return s
}

type content map[string]struct{ Schema ref }

func (c content) name() string {
	for kind, body := range c {
		if kind == "application/json" {
			return body.Schema.name()
		}
		return kind
	}
	return ""
}

func describe(method, path string, raw json.RawMessage) (operation, error) {
	var o struct {
		OperationID string
		Summary     string
		Description string
		Parameters  []struct {
			Name, In, Description string
			Schema                ref
		}
		RequestBody struct{ Content content }
		Responses   map[string]struct{ Content content }
		Security    *[]any
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return operation{}, err
	}
	op := operation{Method: strings.ToUpper(method), Path: path, ID: o.OperationID, Summary: o.Summary, Body: o.RequestBody.Content.name(),
		Answer: o.Responses["200"].Content.name(), Open: o.Security != nil && len(*o.Security) == 0}
	if op.Summary == "" {
		op.Summary = o.Description
	}
	for _, p := range o.Parameters {
		op.Parameters = append(op.Parameters, parameter{p.Name, p.In, p.Schema.name(), p.Description})
	}
	return op, nil
}
