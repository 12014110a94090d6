package main

import (
	"bytes"
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// page is all contracts on one page of Markdown.
func page(c *contracts) []byte {
	var b bytes.Buffer
	b.WriteString("# gRPC\n\nEvery service, message and value of the contracts in [proto/](../../proto). Written by `make reference`: change the comments there.\n\n" +
		"`shallot.node.v1` is what people and their programs call, on `HOME/run/node.sock` or over mutual TLS; `shallot.executor.v1` is what an executor of your own serves. The other services are between " +
		"the processes of one node, and `shallot.event.v1` is what nodes send each other ([events.asyncapi.yaml](events.asyncapi.yaml)). An error is a status with a `google.rpc.ErrorInfo`, whose reasons are " +
		"in [errors.md](errors.md).\n\n")
	for _, p := range c.packages {
		fmt.Fprintf(&b, "- [%s](#%s)\n", p.name, anchor(p.name))
	}
	for _, p := range c.packages {
		fmt.Fprintf(&b, "\n## %s\n", p.name)
		for _, f := range p.files {
			paragraph(&b, about(f))
		}
		for _, f := range p.files {
			for i := range f.Services().Len() {
				service(&b, f.Services().Get(i))
			}
		}
		for _, f := range p.files {
			messages(&b, f.Messages())
			enums(&b, f.Enums())
		}
	}
	return b.Bytes()
}

// anchor is what a heading is called in an address: GitHub leaves all but letters, digits, - and _ out.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, strings.ToLower(heading))
}

// paragraph is a comment as it is: what is indented there is a listing in Markdown, too.
func paragraph(b *bytes.Buffer, text string) {
	if text != "" {
		fmt.Fprintf(b, "\n%s\n", escape(text))
	}
}

// escape keeps Markdown from taking <, | and the like for its own.
func escape(s string) string { return strings.NewReplacer("<", "&lt;", "|", "\\|").Replace(s) }

func service(b *bytes.Buffer, s protoreflect.ServiceDescriptor) {
	fmt.Fprintf(b, "\n### %s\n", s.FullName())
	paragraph(b, comment(s))
	fmt.Fprint(b, "\n| call | takes | gives | |\n| --- | --- | --- | --- |\n")
	for i := range s.Methods().Len() {
		m := s.Methods().Get(i)
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", m.Name(), streamed(m.IsStreamingClient(), m.Input()), streamed(m.IsStreamingServer(), m.Output()), cell(comment(m)))
	}
}

func streamed(stream bool, m protoreflect.MessageDescriptor) string {
	if stream {
		return "stream of " + link(m)
	}
	return link(m)
}

func cell(s string) string { return escape(oneLine(s)) }

// link leads to a type of this project; others are named.
func link(d protoreflect.Descriptor) string {
	if !strings.HasPrefix(string(d.FullName()), "shallot.") {
		return "`" + string(d.FullName()) + "`"
	}
	return fmt.Sprintf("[%s](#%s)", local(d), anchor(string(d.FullName())))
}

// local is a name without its package.
func local(d protoreflect.Descriptor) string {
	return strings.TrimPrefix(string(d.FullName()), string(d.ParentFile().Package())+".")
}

func messages(b *bytes.Buffer, list protoreflect.MessageDescriptors) {
	for i := range list.Len() {
		m := list.Get(i)
		if m.IsMapEntry() {
			continue
		}
		fmt.Fprintf(b, "\n### %s\n", m.FullName())
		paragraph(b, comment(m))
		if m.Fields().Len() > 0 {
			fmt.Fprint(b, "\n| field | type | |\n| --- | --- | --- |\n")
		}
		for j := range m.Fields().Len() {
			f := m.Fields().Get(j)
			fmt.Fprintf(b, "| `%s` (%d) | %s | %s |\n", f.Name(), f.Number(), fieldType(f), cell(strings.TrimSpace(choice(f)+comment(f))))
		}
		messages(b, m.Messages())
		enums(b, m.Enums())
	}
}

// choice says that a field is one of several.
func choice(f protoreflect.FieldDescriptor) string {
	if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
		return "One of " + string(o.Name()) + ". "
	}
	return ""
}

func fieldType(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map of " + scalar(f.MapKey()) + " to " + scalar(f.MapValue())
	case f.IsList():
		return "repeated " + scalar(f)
	case f.HasOptionalKeyword():
		return "optional " + scalar(f)
	}
	return scalar(f)
}

func scalar(f protoreflect.FieldDescriptor) string {
	switch {
	case f.Message() != nil:
		return link(f.Message())
	case f.Enum() != nil:
		return link(f.Enum())
	}
	return f.Kind().String()
}

func enums(b *bytes.Buffer, list protoreflect.EnumDescriptors) {
	for i := range list.Len() {
		e := list.Get(i)
		fmt.Fprintf(b, "\n### %s\n", e.FullName())
		paragraph(b, comment(e))
		fmt.Fprint(b, "\n| value | number | |\n| --- | --- | --- |\n")
		for j := range e.Values().Len() {
			v := e.Values().Get(j)
			fmt.Fprintf(b, "| `%s` | %d | %s |\n", v.Name(), v.Number(), cell(comment(v)))
		}
	}
}
