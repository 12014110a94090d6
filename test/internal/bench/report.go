// Package bench measures Shallot as its users meet it, each figure beside what the same machine can do at best in the same
// minutes. It reports; it never judges a run by its speed.
package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// Rows are the names of the groups of figures, in the order of the report. The footprint is measured first, while nothing else runs.
var Rows = []string{"latency", "throughput", "map", "program", "compute", "content", "events", "footprint", "lost", "scale", "traffic", "tor", "tor-content", "tor-delay", "tor-scale", "compose"}

// Apart are rows that are measured only where they are named: they need a program that is not everywhere.
var Apart = []string{"tor", "tor-content", "tor-delay", "tor-scale", "compose"}

// Report is what one run of the bench found.
type Report struct {
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	// Quick runs repeat little: their figures say that the bench works, nothing more.
	Quick    bool              `json:"quick"`
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Figures  []Figure          `json:"figures"`
}

// Figure is one measured value. A floor, a limit and what follows from them are there where they make sense.
type Figure struct {
	Row   string  `json:"row"`
	Name  string  `json:"figure"`
	Unit  string  `json:"unit"`
	Ours  float64 `json:"ours"`
	Floor float64 `json:"floor,omitempty"`
	// FloorIs says what the floor is.
	FloorIs string  `json:"floor_is,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"` // ours / floor
	Aim     string  `json:"aim,omitempty"`
	Limit   float64 `json:"limit,omitempty"` // the aim as a number in Unit
	Met     *bool   `json:"met,omitempty"`
	// Note says why there is no figure, or what is worth knowing beside it.
	Note string `json:"note,omitempty"`
	// Detail has what the figure is made of, named with its unit.
	Detail map[string]float64 `json:"detail,omitempty"`
}

// beside sets the floor.
func (f Figure) beside(floor float64, is string) Figure {
	f.Floor, f.FloorIs = floor, is
	if floor > 0 {
		f.Ratio = f.Ours / floor
	}
	return f
}

// atMost and atLeast set the aim.
func (f Figure) atMost(limit float64, aim string) Figure {
	return f.judged(limit, aim, f.Ours <= limit)
}
func (f Figure) atLeast(limit float64, aim string) Figure {
	return f.judged(limit, aim, f.Ours >= limit)
}

func (f Figure) judged(limit float64, aim string, met bool) Figure {
	f.Limit, f.Aim, f.Met = limit, aim, &met
	return f
}

// Print writes the table that people read.
func (r Report) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tOURS\tFLOOR\tRATIO\tAIM\tMET\tNOTE")
	for _, f := range r.Figures {
		met := ""
		if f.Met != nil {
			met = map[bool]string{true: "yes", false: "no"}[*f.Met]
		}
		ours, floor, ratio := number(f.Ours, f.Unit), "", ""
		if f.Ours == 0 && f.Note != "" {
			ours = "-"
		}
		if f.Floor > 0 {
			floor, ratio = number(f.Floor, f.Unit), fmt.Sprintf("%.2f", f.Ratio)
		}
		if f.Limit > 0 && f.Aim != "" && !strings.Contains(f.Aim, f.Unit) {
			f.Aim += " = " + number(f.Limit, f.Unit)
		}
		fmt.Fprintln(w, strings.Join([]string{f.Name, ours, floor, ratio, f.Aim, met, f.Note}, "\t"))
	}
	m := r.Machine
	fmt.Fprintf(w, "\n%d cores of %s, %.0f GiB, Linux %s; load %.1f before, %.1f after; stolen by the host: %.1f %% of a core\n",
		m.Cores, m.CPU, m.MemoryGiB, m.Kernel, m.LoadBefore, m.LoadAfter, m.StolenPercent)
	if m.LoadBefore > float64(m.Cores)/2 {
		fmt.Fprintln(w, "The machine was busy before the bench began: compare ratios, not figures.")
	}
	if r.Quick {
		fmt.Fprintln(w, "A quick run: it shows that the bench works, the figures mean little.")
	}
	return w.Flush()
}

func number(v float64, unit string) string {
	switch {
	case unit == "" || v == float64(int64(v)) && v >= 10:
		return strings.TrimSpace(fmt.Sprintf("%.0f %s", v, unit))
	case v >= 100:
		return fmt.Sprintf("%.0f %s", v, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.2f %s", v, unit)
}

// Write writes the report as JSON.
func (r Report) Write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
