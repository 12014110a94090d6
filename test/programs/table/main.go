// Command table reads lines of CSV (name, number, ...) from stdin and prints, per name, how many there were and
// what their numbers add up to: a program as people write them, of some megabytes when compiled to WASI.
package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
)

type total struct {
	lines int
	sum   float64
}

func main() {
	totals := map[string]total{}
	in := csv.NewReader(os.Stdin)
	in.ReuseRecord = true
	for {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && len(fields) < 2 {
			err = errors.New("a line has fewer than two fields")
		}
		if err != nil {
			fail(err)
		}
		n, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			fail(err)
		}
		t := totals[fields[0]]
		totals[fields[0]] = total{t.lines + 1, t.sum + n}
	}
	for _, name := range slices.Sorted(maps.Keys(totals)) {
		fmt.Printf("%s %d %.2f\n", name, totals[name].lines, totals[name].sum)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "table:", err)
	os.Exit(1)
}
