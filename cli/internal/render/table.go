package render

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Colour is what a cell's meaning is painted with, on terminals only.
type Colour int

// What colours mean.
const (
	Plain Colour = iota
	Good
	Bad
	Busy
	Faint
)

var paint = map[Colour]text.Colors{
	Good: {text.FgGreen}, Bad: {text.FgRed}, Busy: {text.FgYellow}, Faint: {text.Faint},
}

// Printer prints data to stdout.
type Printer struct {
	W      io.Writer
	JSON   bool
	Colour bool
}

// Object prints one JSON document.
func (p Printer) Object(v any) error {
	data, err := marshal(v)
	if err != nil {
		return fmt.Errorf("make JSON: %w", err)
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(json.RawMessage(data)); err != nil {
		return fmt.Errorf("make JSON: %w", err)
	}
	_, err = io.WriteString(p.W, out.String())
	return err
}

// Line prints one JSON document as one line, for streams of them.
func (p Printer) Line(v any) error {
	data, err := marshal(v)
	if err != nil {
		return fmt.Errorf("make JSON: %w", err)
	}
	_, err = p.W.Write(append(data, '\n'))
	return err
}

// Paint colours text where the printer may.
func (p Printer) Paint(c Colour, s string) string {
	if !p.Colour || c == Plain {
		return s
	}
	return paint[c].EscapeSeq() + s + text.Reset.EscapeSeq()
}

// Cell is one cell of a table.
type Cell struct {
	Text   string
	Colour Colour
}

// Table prints rows under a header, aligned; what is in the cells is cleaned.
func (p Printer) Table(header []string, rows [][]Cell) error {
	t := table.NewWriter()
	t.SetStyle(plain)
	head := make(table.Row, len(header))
	for i, h := range header {
		head[i] = strings.ToUpper(h)
	}
	t.AppendHeader(head)
	return p.flush(t, rows)
}

// Pairs prints names and values, one a line.
func (p Printer) Pairs(rows [][2]Cell) error {
	t := table.NewWriter()
	t.SetStyle(plain)
	out := make([][]Cell, len(rows))
	for i, r := range rows {
		out[i] = []Cell{{r[0].Text + ":", Faint}, r[1]}
	}
	return p.flush(t, out)
}

func (p Printer) flush(t table.Writer, rows [][]Cell) error {
	for _, r := range rows {
		row := make(table.Row, len(r))
		for i, c := range r {
			row[i] = p.Paint(c.Colour, Dash(cell(c.Text)))
		}
		t.AppendRow(row)
	}
	for line := range strings.Lines(t.Render() + "\n") {
		if _, err := io.WriteString(p.W, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// plain has no lines: two spaces between columns.
var plain = table.Style{
	Name:    "plain",
	Box:     table.BoxStyle{PaddingRight: "  "},
	Format:  table.FormatOptions{Header: text.FormatDefault, Row: text.FormatDefault},
	Options: table.OptionsNoBordersAndSeparators,
}

// StateColour says how a task's state is painted.
func StateColour(state string) Colour {
	switch state {
	case "COMPLETED":
		return Good
	case "FAILED", "EXPIRED":
		return Bad
	case "CANCELLED":
		return Faint
	}
	return Busy
}
