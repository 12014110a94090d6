// Command convert makes the OpenAPI 3 document out of the generated version 2 (grpc-gateway's generator of version 3 does not
// read a gRPC API configuration) and the hand-written paths whose bodies are bytes. Run by `make generate`, in gateway/.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"
)

func main() {
	if err := convert("internal/openapi/v2/shallot.swagger.json", "api/bodies.yaml", "internal/openapi/openapi.json"); err != nil {
		fmt.Fprintln(os.Stderr, "convert:", err)
		os.Exit(1)
	}
}

func convert(from, bodies, to string) error {
	raw, err := os.ReadFile(filepath.Clean(from))
	if err != nil {
		return err
	}
	var v2 openapi2.T
	if err := json.Unmarshal(raw, &v2); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	doc, err := openapi2conv.ToV3(&v2)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	loader := openapi3.NewLoader()
	more, err := loader.LoadFromFile(bodies)
	if err != nil {
		return fmt.Errorf("%s: %w", bodies, err)
	}
	doc.OpenAPI = "3.0.3"
	doc.Info = &openapi3.Info{Title: "Shallot", Version: "v1", Description: "REST in front of shallot.node.v1: one node of an anonymous, decentralised compute network. " +
		"64-bit numbers are strings, as in all JSON of Protocol Buffers."}
	doc.Servers = nil
	for path, item := range more.Paths.Map() {
		doc.Paths.Set(path, item)
	}
	doc.Components.SecuritySchemes = more.Components.SecuritySchemes
	for name, s := range more.Components.Schemas {
		doc.Components.Schemas[name] = s
	}
	// What grpc-gateway calls an error is not what this gateway answers.
	delete(doc.Components.Schemas, "Status")
	delete(doc.Components.Schemas, "Any")
	doc.Security = openapi3.SecurityRequirements{openapi3.NewSecurityRequirement().Authenticate("token"), openapi3.NewSecurityRequirement().Authenticate("session")}
	problem := openapi3.NewResponse().WithDescription("an error").WithJSONSchemaRef(openapi3.NewSchemaRef("#/components/schemas/Problem", nil))
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			op.Responses.Set("default", &openapi3.ResponseRef{Value: problem})
		}
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	// A stream's messages are wrapped with an error field of grpc-gateway's own kind.
	out = []byte(strings.ReplaceAll(string(out), `"#/components/schemas/Status"`, `"#/components/schemas/Problem"`))
	check, err := openapi3.NewLoader().LoadFromData(out)
	if err != nil {
		return err
	}
	if err := check.Validate(openapi3.NewLoader().Context); err != nil {
		return fmt.Errorf("the document made is not valid: %w", err)
	}
	return os.WriteFile(filepath.Clean(to), append(out, '\n'), 0o644) //nolint:gosec // a file of the repository
}
