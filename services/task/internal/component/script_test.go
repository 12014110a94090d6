package component_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// script is an executor whose runs do what their options say.
type script struct {
	mu    sync.Mutex
	runs  map[string]int           // by name
	gates map[string]chan struct{} // by name: a run waits until it is closed
	begun chan string              // names, as they begin
}

// step is a run's options.
type step struct {
	Name   string
	Wait   bool          // until the gate opens
	Stdout int           // bytes
	Stderr string        // at once
	Files  int           // bytes in output:out.bin
	Exit   int32         //
	Reason string        // of the outcome
	Die    int           // the executor dies in this many first runs
	Sleep  time.Duration // of the program
	Show   bool          // the parts' bytes on stdout
	Mirror bool          // each input:PATH comes back as output:PATH
}

func newScript() *script {
	return &script{runs: make(map[string]int), gates: make(map[string]chan struct{}), begun: make(chan string, 1024)}
}

func (s *script) gate(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gates[name]
	if g == nil {
		g = make(chan struct{})
		s.gates[name] = g
	}
	return g
}

func (s *script) ran(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[name]
}

func (s *script) Describe() app.Capability { return app.Capability{Type: "script", Version: "1"} }

func (s *script) Validate(context.Context, []byte, []app.Part) error { return nil }

func (s *script) Execute(ctx context.Context, run app.Run, sink app.Sink) (app.Outcome, error) {
	var st step
	if err := json.Unmarshal(run.Options, &st); err != nil {
		return app.Outcome{Reason: app.ReasonPayloadInvalid, Message: err.Error()}, nil
	}
	s.mu.Lock()
	s.runs[st.Name]++
	n := s.runs[st.Name]
	s.mu.Unlock()
	sink.Started()
	select {
	case s.begun <- st.Name:
	default:
	}
	if n <= st.Die {
		return app.Outcome{}, errors.New("the executor died")
	}
	if st.Stderr != "" {
		if err := sink.Output("stderr", []byte(st.Stderr)); err != nil {
			return app.Outcome{Reason: app.ReasonOutputLimit}, nil
		}
	}
	if st.Wait || st.Sleep > 0 {
		var after <-chan time.Time
		if st.Sleep > 0 {
			after = time.After(st.Sleep)
		}
		select {
		case <-s.gate(st.Name):
		case <-after:
		case <-ctx.Done():
			return app.Outcome{Reason: app.ReasonCancelled}, nil
		case <-time.After(run.Limits.Time):
			return app.Outcome{Reason: app.ReasonTimeLimit, Message: "the time is over"}, nil
		}
	}
	for name, size := range map[string]int{"stdout": st.Stdout, "output:out.bin": st.Files} {
		chunk := bytes.Repeat([]byte("0123456789abcdef"), 2048)
		for left := size; left > 0; left -= len(chunk) {
			if err := sink.Output(name, chunk[:min(left, len(chunk))]); err != nil {
				return app.Outcome{Reason: app.ReasonOutputLimit, Message: "too much"}, nil
			}
		}
	}
	if st.Mirror {
		return app.Outcome{}, show(run.Parts, sink, func(p app.Part) string { return strings.Replace(p.Name, "input:", "output:", 1) })
	}
	sizes := 0
	for _, p := range run.Parts {
		sizes += int(p.Size)
	}
	if st.Show {
		if err := show(run.Parts, sink, func(app.Part) string { return "stdout" }); err != nil {
			return app.Outcome{}, err
		}
	} else if len(run.Parts) > 0 {
		if err := sink.Output("stdout", fmt.Appendf(nil, "%d parts, %d bytes", len(run.Parts), sizes)); err != nil {
			return app.Outcome{Reason: app.ReasonOutputLimit}, nil
		}
	}
	return app.Outcome{ExitCode: st.Exit, Reason: st.Reason, Message: st.Reason}, nil
}

func show(parts []app.Part, sink app.Sink, as func(app.Part) string) error {
	for _, p := range parts {
		b := p.Inline
		if p.Path != "" {
			var err error
			if b, err = os.ReadFile(p.Path); err != nil {
				return err
			}
		}
		if err := sink.Output(as(p), b); err != nil {
			return err
		}
	}
	return nil
}

func scriptSpec(st step, parts ...*taskv1.InputFile) *taskv1.TaskSpec {
	b, _ := json.Marshal(st)
	return &taskv1.TaskSpec{Type: "script", Payload: &taskv1.TaskSpec_External{External: &taskv1.ExternalPayload{Options: b, Parts: parts}}}
}
