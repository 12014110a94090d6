package app

import "time"

// Metrics counts. No argument is an id.
type Metrics interface {
	// Ended counts a task (consumer) or an attempt (provider) that reached a terminal state. reason is empty, or one of few.
	Ended(state, reason string)
	// Attempt counts what became of a placement: SUBMITTED, REFUSED, LEASE_LOST, …
	Attempt(what string)
	// Event counts an event by the name of its type and the verdict.
	Event(name string, v Verdict)
	// Puzzle counts what became of the price of a submission, by one of few words.
	Puzzle(what string)
	// Run measures one execution of a task type, from its start to its end.
	Run(taskType string, d time.Duration)
}

// NoMetrics counts nothing.
type NoMetrics struct{}

// Ended counts nothing.
func (NoMetrics) Ended(string, string) {}

// Attempt counts nothing.
func (NoMetrics) Attempt(string) {}

// Event counts nothing.
func (NoMetrics) Event(string, Verdict) {}

// Puzzle counts nothing.
func (NoMetrics) Puzzle(string) {}

// Run measures nothing.
func (NoMetrics) Run(string, time.Duration) {}
