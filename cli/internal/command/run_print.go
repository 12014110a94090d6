package command

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"unicode/utf8"

	"github.com/shallot-net/shallot/cli/internal/render"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// maxCapture bounds what is put inside a JSON document.
const maxCapture = 8 << 20

// capture keeps the beginning of a stream of bytes.
type capture struct {
	b    bytes.Buffer
	size uint64
}

func (c *capture) Write(p []byte) (int, error) {
	c.size += uint64(len(p))
	if room := maxCapture - c.b.Len(); room > 0 {
		c.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// fields are the captured bytes as JSON: as text where they are, else in base64.
func (c *capture) fields(o render.Object, name string) render.Object {
	text, encoded := any(nil), any(nil)
	if data := c.b.Bytes(); utf8.Valid(data) {
		text = string(data)
	} else {
		encoded = base64.StdEncoding.EncodeToString(data)
	}
	return o.With(name, text).With(name+"_base64", encoded).With(name+"_truncated", c.size > uint64(c.b.Len()))
}

// printSubmitted prints a task that was just made.
func (a *app) printSubmitted(t *taskv1.Task) error {
	if a.json() {
		return a.out().Object(render.Proto(t))
	}
	_, err := fmt.Fprintln(a.Stdout, t.GetId())
	return err
}

// printRun prints the ended task with its history and its stdout.
func (e *execution) printRun(ctx context.Context, t *taskv1.Task) error {
	if resp, err := e.client.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: t.GetId()}); err == nil {
		t = resp.GetTask()
	} // the history is the only thing that would be missing
	return e.out().Object(e.captured.fields(render.Proto(t), "stdout"))
}
