// Command reference writes what the contracts say, for readers and for tools: a page of all gRPC services (grpc.md), the events that nodes send each other as an AsyncAPI document
// (events.asyncapi.yaml), both from the descriptors with their comments, as `buf build` writes them, and a page of the reasons of errors (errors.md). Run by `make reference`.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/shallot-net/shallot/test/internal/reasons"
)

func main() {
	image := flag.String("image", "", "the `FILE` that buf build --as-file-descriptor-set wrote")
	top := flag.String("top", "..", "the `FOLDER` of the repository")
	out := flag.String("out", "", "the `FOLDER` to write to")
	flag.Parse()
	if err := run(*image, *top, *out); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func run(image, top, out string) error {
	if image == "" || out == "" {
		return errors.New("give -image FILE and -out FOLDER")
	}
	c, err := read(image)
	if err != nil {
		return err
	}
	events, err := asyncAPI(c)
	if err != nil {
		return err
	}
	uses, err := reasons.Collect(top)
	if err != nil {
		return err
	}
	words, err := reasons.Page(uses)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"grpc.md": page(c), "events.asyncapi.yaml": events, "errors.md": words} {
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil { //nolint:gosec // for everybody
			return err
		}
	}
	return nil
}

// contracts are this project's packages in the order in which a reader wants them.
type contracts struct {
	files    *protoregistry.Files
	packages []pkg
}

type pkg struct {
	name  string
	files []protoreflect.FileDescriptor
}

// first are the packages that are meant for people; the others are between the processes of a node, and follow by name.
var first = []string{"shallot.node.v1", "shallot.task.v1", "shallot.executor.v1", "shallot.telemetry.v1", "shallot.event.v1"}

func read(image string) (*contracts, error) {
	data, err := os.ReadFile(filepath.Clean(image))
	if err != nil {
		return nil, err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	c := &contracts{files: files}
	byName := map[string][]protoreflect.FileDescriptor{}
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if name := string(f.Package()); strings.HasPrefix(name, "shallot.") {
			byName[name] = append(byName[name], f)
		}
		return true
	})
	for name, list := range byName {
		slices.SortFunc(list, func(a, b protoreflect.FileDescriptor) int { return strings.Compare(a.Path(), b.Path()) })
		c.packages = append(c.packages, pkg{name, list})
	}
	slices.SortFunc(c.packages, func(a, b pkg) int {
		if d := rank(a.name) - rank(b.name); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	if len(c.packages) == 0 {
		return nil, fmt.Errorf("%s has no contract of this project", image)
	}
	return c, nil
}

func rank(name string) int {
	if i := slices.Index(first, name); i >= 0 {
		return i
	}
	return len(first)
}

// comment is what the source says before a descriptor, else behind it.
func comment(d protoreflect.Descriptor) string {
	loc := d.ParentFile().SourceLocations().ByDescriptor(d)
	if loc.LeadingComments != "" {
		return tidy(loc.LeadingComments)
	}
	return tidy(loc.TrailingComments)
}

// about is what a file says of its package.
func about(f protoreflect.FileDescriptor) string {
	const packageField = 2 // in FileDescriptorProto
	return tidy(f.SourceLocations().ByPath(protoreflect.SourcePath{packageField}).LeadingComments)
}

// tidy takes the space away that stands after each //.
func tidy(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.TrimSuffix(strings.TrimPrefix(strings.TrimRight(line, "\n"), " "), " "))
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

// oneLine is a comment in a cell of a table, or in a description.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
