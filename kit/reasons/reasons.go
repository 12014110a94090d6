// Package reasons has the words for machine-readable reasons: what each means, and what to do. docs/reference/errors.md is made of them, and the command shows them, so that both say the
// same. Tests of test/internal/reasons hold the lists against the sources that give the reasons.
package reasons

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

//go:embed errors.txt
var errorsText string

//go:embed tasks.txt
var tasksText string

//go:embed placement.txt
var placementText string

// Entry is what a reason means, and what mends it.
type Entry struct{ Reason, Means, Mends string }

// Errors are the reasons of errors, in the order of the alphabet.
func Errors() ([]Entry, error) { return table("errors.txt", errorsText) }

// Ends are the reasons for which attempts and tasks end, in the order of the alphabet.
func Ends() ([]Entry, error) { return table("tasks.txt", tasksText) }

var shaped = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)

func table(name, text string) (out []Entry, err error) {
	return out, lines(name, text, func(cells []string) bool {
		out = append(out, Entry{cells[0], cells[1], cells[2]})
		return shaped.MatchString(cells[0])
	})
}

// lines gives the three cells of each line to add, which says whether they are right.
func lines(name, text string, add func(cells []string) bool) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || strings.TrimSpace(cells[1]) == "" || strings.TrimSpace(cells[2]) == "" || !add(cells) {
			return fmt.Errorf("%s:%d: %q is no line of three cells with a | between them", name, n, line)
		}
	}
	return nil
}

// Code is one word of a placement's explanation.
type Code struct{ Code, Means string }

// Placement has the words of a placement: why a provider was chosen or nobody was, and what was thought of one that was considered.
func Placement() (chosen, considered []Code, err error) {
	err = lines("placement.txt", placementText, func(cells []string) bool {
		c := Code{cells[1], cells[2]}
		switch cells[0] {
		case "chosen":
			chosen = append(chosen, c)
		case "considered":
			considered = append(considered, c)
		default:
			return false
		}
		return shaped.MatchString(c.Code)
	})
	return chosen, considered, err
}

var index = sync.OnceValue(func() (x struct {
	ends               map[string]Entry
	chosen, considered map[string]string
},
) {
	ends, _ := Ends() // a test reads all three, which are part of the program
	chosen, considered, _ := Placement()
	x.ends, x.chosen, x.considered = map[string]Entry{}, map[string]string{}, map[string]string{}
	for _, e := range ends {
		x.ends[e.Reason] = e
	}
	for _, c := range chosen {
		x.chosen[c.Code] = c.Means
	}
	for _, c := range considered {
		x.considered[c.Code] = c.Means
	}
	return x
})

// End is what the end of an attempt or task means. known is false of a reason that an executor of somebody's own has given.
func End(reason string) (e Entry, known bool) {
	e, known = index().ends[reason]
	return e, known
}

// Chosen says in words why a provider was chosen, or nobody was; empty of a code that is not known.
func Chosen(code string) string { return index().chosen[code] }

// Considered says in words what was thought of a provider; empty of a code that is not known.
func Considered(code string) string { return index().considered[code] }
