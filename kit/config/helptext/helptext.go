// Package helptext reads what a process of a node prints for --help, as package config writes it, for pages about settings.
package helptext

import (
	"fmt"
	"slices"
	"strings"
)

// Help is what a process says of itself.
type Help struct {
	Program  string // "shallot-task"
	Does     string // a phrase, without a full stop
	Settings []Setting
}

// Setting is one row. Value and Env are empty where there is none.
type Setting struct {
	Flag  string // "--log.level", or with what it takes: "--config FILE"
	Value string // the default
	Env   string // the variable that sets it
	What  string
}

// columns of the table, in their order.
var columns = []string{"FLAG", "DEFAULT", "ENVIRONMENT", "WHAT IT IS"}

// Parse reads the whole text. What is not of that shape is an error.
func Parse(text string) (Help, error) {
	first, _, _ := strings.Cut(text, "\n")
	program, does, ok := strings.Cut(first, ": ")
	_, table, found := strings.Cut(text, "\n\n"+columns[0]+" ")
	if !ok || !found {
		return Help{}, fmt.Errorf("no program and table of settings in the help %.80q", text)
	}
	header, rows, _ := strings.Cut(columns[0]+" "+table, "\n")
	at := make([]int, len(columns))
	for i, name := range columns {
		if at[i] = strings.Index(header, name); at[i] < 0 {
			return Help{}, fmt.Errorf("the table of %s has no column %q", program, name)
		}
	}
	h := Help{Program: program, Does: strings.TrimSuffix(does, ".")}
	for row := range strings.Lines(rows) {
		runes := []rune(strings.TrimRight(row, "\n"))
		if len(runes) < at[len(at)-1] || !strings.HasPrefix(row, "--") {
			return Help{}, fmt.Errorf("the row %q of %s is none of the table's", row, program)
		}
		cells := make([]string, len(at))
		for i, end := range append(slices.Clone(at[1:]), len(runes)) {
			cells[i] = strings.TrimSpace(string(runes[at[i]:end]))
		}
		h.Settings = append(h.Settings, Setting{cells[0], cells[1], cells[2], cells[3]})
	}
	if len(h.Settings) == 0 {
		return Help{}, fmt.Errorf("the help of %s lists no settings", program)
	}
	return h, nil
}
