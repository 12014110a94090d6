package app

import (
	"context"
	"time"
)

// Executor runs payloads of one task type.
//
// Execute blocks until the run has ended, and may be called from several goroutines at once, as often as the
// provider has slots. Its error means that the provider is at fault (the executor died, could not start): the
// attempt is worth trying elsewhere. Everything that is the program's own or a limit's end is an Outcome with
// a Reason. When ctx ends the run is killed within a second and the outcome's Reason is CANCELLED.
// (Run.TaskID, Run.Attempt) is an idempotency key: after a crash the same run may come again.
type Executor interface {
	// Describe says what the executor is and the most that one run of it may have. It does not block.
	Describe() Capability
	// Validate checks a payload without running it. A *fault.Error with INVALID_ARGUMENT names what is bad.
	Validate(ctx context.Context, options []byte, parts []Part) error
	Execute(ctx context.Context, run Run, sink Sink) (Outcome, error)
}

// Guest is an Executor that comes and goes: a process that is not this node's own.
type Guest interface {
	Executor
	// Present tells whether it can run anything now, and how many runs it takes side by side: Execute is not called beyond that. It
	// does not block. Execute may be called of one that is away, and fails or waits a little.
	Present() (width int, here bool)
	// OnChange says what to call after Present or Describe have begun to say something else. Call it once, before anything else.
	OnChange(f func())
}

// Capability is one task type that a provider executes.
type Capability struct {
	Type       string
	Version    string
	Attributes map[string]string // what else a consumer may choose by, for example engine=wasmtime
	MaxLimits  Limits            // zero: the policy's
	MinMemory  int64             // bytes that a run needs at least
}

// Limits bound one execution. Zero means: as the provider's policy says.
type Limits struct {
	Time   time.Duration
	Memory int64 // bytes that the program may have
	Output int64 // bytes of stdout, stderr and output files together
}

// Run is one attempt as the executor sees it.
type Run struct {
	TaskID  string
	Attempt uint32
	Options []byte // the type's own, an encoded executor.v1 message
	Parts   []Part
	Limits  Limits // none is zero
}

// Part is one body of bytes of a payload: "module", "stdin", or "input:NAME". It is either Inline, or a file at
// Path that the executor may read, must not change, and which is gone after the run.
type Part struct {
	Name   string
	Size   int64
	SHA256 [32]byte
	Inline []byte
	Path   string
}

// Sink takes what a run gives, while it gives it. Calls come one at a time.
type Sink interface {
	// Started says that the program has begun to run (a module may compile for seconds before).
	Started()
	// Output takes a piece of "stdout", "stderr" or "output:NAME". It may block (back-pressure) and does not
	// keep data. An error means that the output limit or the disk is full: the run has to end.
	Output(name string, data []byte) error
}

// ProgressSink is a Sink that wants to hear how far a run is.
type ProgressSink interface {
	Sink
	// Progress takes a fraction from 0 to 1 and one line of at most 200 bytes; the latest counts.
	Progress(fraction float64, text string)
}

// Outcome is how a run ended.
type Outcome struct {
	ExitCode   int32
	Reason     string // empty when the program ended by itself; else one of the Reason constants
	Message    string
	CPU        time.Duration
	PeakMemory int64 // bytes
}

// Reasons of an Outcome.
const (
	ReasonTrap           = "TRAP"
	ReasonTimeLimit      = "TIME_LIMIT"
	ReasonMemoryLimit    = "MEMORY_LIMIT"
	ReasonOutputLimit    = "OUTPUT_LIMIT"
	ReasonCompile        = "COMPILE"
	ReasonPayloadInvalid = "PAYLOAD_INVALID"
	ReasonSealUnknown    = "SEAL_UNKNOWN"
	ReasonCancelled      = "CANCELLED"
	// ReasonPayloadUnavailable: the provider could not fetch the payload, or what it refers to.
	ReasonPayloadUnavailable = "PAYLOAD_UNAVAILABLE"
	// ReasonPuzzleRequired: the provider has a price, and the submission pays too little.
	ReasonPuzzleRequired = "PUZZLE_REQUIRED"
)
