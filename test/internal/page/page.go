// Package page runs the commands of a page of the documentation, from the first to the last, as a reader would who types them into terminals.
//
// A block ```sh has commands, and a block ```text right behind it what they print: each of its lines must be in their output, wherever; … stands for anything, and spaces count as
// one. Words behind sh say how a reader runs it:
//
//	```sh                     in the page's terminal, to the end; each command must exit with 0
//	```sh terminal=NAME       in another terminal, where it stays: the page goes on when it has printed its ```text. The next block there begins with Ctrl-C
//	```sh needs=REASON        not at all, for one of the reasons of Needs; it is only parsed
package page

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Needs are the reasons for which commands of a page are not run, and what they want.
var Needs = map[string]string{
	"root":     "a machine of the reader's own, to install packages or start services on",
	"engine":   "a container engine: docs/operations.md has them in a test that has one",
	"internet": "other people's nodes, or the public Tor network",
}

// Block is a piece of a page: commands, and lines that what they print must have in it.
type Block struct {
	Page     string
	Line     int
	Section  string
	Terminal string // "" for the page's own
	Needs    string // of Needs; "" for a block that is run
	Commands string
	Prints   []string
}

func (b Block) String() string { return fmt.Sprintf("%s:%d (%s)", b.Page, b.Line, b.Section) }

// Read returns the blocks of a page in their order. A block of another kind than sh and text is an error, because nobody would know whether it is right.
func Read(path string) ([]Block, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, string(text))
}

func parse(path, text string) (out []Block, err error) {
	kind, section, body := "", "", ""
	number, start, behind := 0, 0, false // behind: right behind a block of commands
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		number++
		switch {
		case kind == "" && strings.HasPrefix(line, "```"):
			kind, start, body = strings.TrimPrefix(line, "```"), number, ""
		case kind == "":
			if name, ok := strings.CutPrefix(line, "## "); ok {
				section = name
			}
			behind = behind && strings.TrimSpace(line) == ""
		case line != "```":
			body += line + "\n"
		case kind == "text":
			if !behind {
				return nil, fmt.Errorf("%s:%d: a block of text that is behind no commands", path, start)
			}
			for line := range strings.Lines(body) {
				if line = strings.TrimSpace(line); line != "" && line != "…" {
					out[len(out)-1].Prints = append(out[len(out)-1].Prints, line)
				}
			}
			kind, behind = "", false
		default:
			b := Block{Page: path, Line: start, Section: section, Commands: body}
			if err := b.how(kind); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", path, start, err)
			}
			out, kind, behind = append(out, b), "", true
		}
	}
	if kind != "" {
		return nil, fmt.Errorf("%s:%d: a block that has no end", path, start)
	}
	return out, nil
}

// how reads the words behind the three ticks.
func (b *Block) how(words string) error {
	f := strings.Fields(words)
	if len(f) == 0 || f[0] != "sh" {
		return fmt.Errorf("a block of %q: commands are sh, what they print is text", words)
	}
	for _, word := range f[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "terminal" && value != "":
			b.Terminal = value
		case key == "needs" && Needs[value] != "":
			b.Needs = value
		default:
			return fmt.Errorf("a block of commands has %q: it may have terminal=NAME, and needs= with one of the reasons of Needs", word)
		}
	}
	return nil
}

// missing is the first line of a block's that the output does not have.
func (b Block) missing(output string) (line string, is bool) {
	output = spaces.ReplaceAllString(output, " ")
	i := slices.IndexFunc(b.Prints, func(line string) bool { return !pattern(line).MatchString(output) })
	if i < 0 {
		return "", false
	}
	return b.Prints[i], true
}

// spaces of a table depend on what else is in it.
var spaces = regexp.MustCompile(`[ \t]+`)

// pattern has what is around each … in its order, on one line.
func pattern(line string) *regexp.Regexp {
	parts := strings.Split(spaces.ReplaceAllString(line, " "), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(strings.Join(parts, "[^\n]*"))
}
