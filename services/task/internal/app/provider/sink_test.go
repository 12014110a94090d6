package provider

import (
	"errors"
	"syscall"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

type noRoom struct{}

func (noRoom) Make() (string, func(), error) { return "", nil, syscall.ENOSPC }

// An output for which there is no room is the provider's fault, and not said to be its executor's.
func TestNoRoomForTheOutput(t *testing.T) {
	s := newSink(noRoom{}, 1<<20, &logStream{})
	err := s.Output("stdout", make([]byte, inMemory+1))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the output is taken: %v", err)
	}
	out := outcome(app.Outcome{}, errors.New("cannot take the program's output"), false, s)
	if out.Cause != domain.CauseProvider || out.Reason != "RESULT_LOST" {
		t.Errorf("the outcome is %+v", out)
	}
	s = newSink(noRoom{}, 1<<20, &logStream{})
	if err := s.Output("output:../x", nil); err == nil {
		t.Fatal("a path that leads out is taken")
	}
	if out := outcome(app.Outcome{}, err, false, s); out.Reason != "EXECUTOR_DIED" {
		t.Errorf("the outcome is %+v", out)
	}
}
