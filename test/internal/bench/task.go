package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/floor"
)

// timeLimit is what every measured task may take: it is on, and never reached.
const timeLimit = 2 * time.Minute

func sumSpec() *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{"1", "2", "39"}}}}
}

func wasmSpec(module, stdin []byte, args ...string) *taskv1.TaskSpec {
	w := &taskv1.WasmPayload{Module: inline(module), Args: args}
	if len(stdin) > 0 {
		w.Stdin = inline(stdin)
	}
	return &taskv1.TaskSpec{Type: "wasm", Payload: &taskv1.TaskSpec_Wasm{Wasm: w}, Limits: &eventv1.Limits{Time: durationpb.New(timeLimit)}}
}

func inline(b []byte) *taskv1.Blob { return &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: b}} }

func smallSpec() *taskv1.TaskSpec { return wasmSpec(floor.SmallModule(), nil) }

// runTask gives the node a task, waits for its end, and checks its state and what it printed; a nil want is not compared. It returns
// stdout and the task.
func (s *session) runTask(ctx context.Context, spec *taskv1.TaskSpec, want []byte) ([]byte, *taskv1.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	stream, err := s.node.RunTask(ctx, &nodev1.RunTaskRequest{Spec: spec})
	if err != nil {
		return nil, nil, err
	}
	var stdout []byte
	var task *taskv1.Task
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, task, err
		}
		if t := r.GetTask(); t != nil {
			task = t
		}
		stdout = append(stdout, r.GetStdout()...)
	}
	if task.GetState() != "COMPLETED" || task.GetExitCode() != 0 {
		return nil, task, fmt.Errorf("task %s ended as %s, exit code %d: %v", task.GetId(), task.GetState(), task.GetExitCode(), task.GetError())
	}
	if want != nil && !bytes.Equal(stdout, want) {
		return nil, task, fmt.Errorf("task %s printed %.100q, want %.100q", task.GetId(), stdout, want)
	}
	return stdout, task, nil
}

func (s *session) sum(ctx context.Context) error {
	_, _, err := s.runTask(ctx, sumSpec(), []byte("42\n"))
	return err
}

func (s *session) small(ctx context.Context) error {
	_, _, err := s.runTask(ctx, smallSpec(), []byte("done\n"))
	return err
}
