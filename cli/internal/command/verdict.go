package command

import (
	"fmt"

	"github.com/shallot-net/shallot/cli/internal/render"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// verdict is the exit code that a task's end asks for.
func verdict(t *taskv1.Task) error {
	id := t.GetId()
	switch t.GetState() {
	case "COMPLETED":
		if code := exitCode(t.GetExitCode()); code != 0 {
			return &codeError{code: code}
		}
		return nil
	case "CANCELLED":
		return &codeError{exitInterrupted, fmt.Errorf("the task was cancelled (task %s)", id)}
	case "EXPIRED":
		return &codeError{exitTime, fmt.Errorf("the task expired: %s (task %s; %s)", reason(t), id, explained(id))}
	}
	code := exitTask
	if t.GetError().GetReason() == "TIME_LIMIT" {
		code = exitTime
	}
	return &codeError{code, fmt.Errorf("the task failed: %s (task %s; %s)", reason(t), id, explained(id))}
}

// explained is where more is said of a task's failure.
func explained(id string) string {
	return "'shallot task why " + render.ShortID(id) + "' says what to do"
}

// exitCode fits a program's code into the eight bits that a process has, so that no failure becomes a success.
func exitCode(code int32) int {
	if code&0xff == 0 && code != 0 {
		return 255
	}
	return int(code & 0xff)
}

func reason(t *taskv1.Task) string {
	e := t.GetError()
	switch {
	case e.GetReason() == "" && e.GetMessage() == "":
		return "no reason was given"
	case e.GetMessage() == "":
		return e.GetReason()
	}
	return e.GetReason() + ": " + e.GetMessage()
}

// doing says what a task waits for.
func doing(t *taskv1.Task) string {
	what := map[string]string{
		"PENDING": "looking for a provider", "SUBMITTED": "waiting for a provider's answer",
		"ACCEPTED": "waiting in the provider's queue", "RUNNING": "running",
	}[t.GetState()]
	if what == "" {
		what = "fetching the result"
	}
	if p := t.GetQueuePosition(); p > 0 && t.GetState() == "ACCEPTED" {
		what += fmt.Sprintf(", at place %d", p)
	}
	if n := t.GetAttempts(); n > 1 {
		what += fmt.Sprintf(", attempt %d", n)
	}
	return what + " · task " + t.GetId()
}
