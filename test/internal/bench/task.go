package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/module"
)

// timeLimit is what every measured task may take: it is on, and never reached.
const timeLimit = 2 * time.Minute

func sumSpec() *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: []string{"1", "2", "39"}}}}
}

func wasmSpec(module, stdin *taskv1.Blob, args ...string) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "wasm", Limits: &eventv1.Limits{Time: durationpb.New(timeLimit)},
		Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{Module: module, Stdin: stdin, Args: args}}}
}

func inline(b []byte) *taskv1.Blob { return &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: b}} }

// The command sends bodies of up to so many bytes inside the call, and uploads larger ones first, in pieces.
const (
	inlineLimit = 128 << 10
	pieceSize   = 256 << 10
)

// blob is a body as the command sends it. What is large is on the node before the task is submitted, and can serve many.
func (s *session) blob(ctx context.Context, body []byte) (*taskv1.Blob, error) {
	if len(body) <= inlineLimit {
		return inline(body), nil
	}
	stream, err := s.node.Upload(ctx)
	if err != nil {
		return nil, err
	}
	for piece := range slices.Chunk(body, pieceSize) {
		if err := stream.Send(&nodev1.UploadRequest{Data: piece}); err != nil {
			break // the reason comes with the answer
		}
	}
	r, err := stream.CloseAndRecv()
	if err != nil {
		return nil, fmt.Errorf("upload: %w", err)
	}
	return &taskv1.Blob{Source: &taskv1.Blob_UploadId{UploadId: r.GetUploadId()}}, nil
}

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
	_, _, err := s.runTask(ctx, wasmSpec(inline(module.Small()), nil), []byte("done\n"))
	return err
}
