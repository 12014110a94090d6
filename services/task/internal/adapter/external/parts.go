package external

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// Bounds of a Start. All together they stay below maxMessage.
const (
	maxOptions = 1 << 20
	maxParts   = 1024
	maxInline  = 64 << 10 // of one part; a larger one, and what is beyond inlineAll, is streamed
	inlineAll  = 1 << 20
	chunkSize  = 64 << 10
)

// partsOf describes the parts, the same each time. A path would name a file of this process to a server that may run as somebody
// else: bytes are inline, or follow as chunks.
func partsOf(parts []app.Part) []*executorv1.Part {
	out := make([]*executorv1.Part, len(parts))
	inline := 0
	for i, p := range parts {
		m := &executorv1.Part{Name: p.Name, Size: uint64(p.Size), Sha256: parts[i].SHA256[:]} //nolint:gosec // never negative
		if p.Path == "" && len(p.Inline) <= maxInline && inline+len(p.Inline) <= inlineAll {
			inline += len(p.Inline)
			m.Source = &executorv1.Part_Inline{Inline: p.Inline}
		} else {
			m.Source = &executorv1.Part_Streamed{Streamed: true}
		}
		out[i] = m
	}
	return out
}

func streamed(parts []app.Part) bool {
	for _, p := range partsOf(parts) {
		if p.GetStreamed() {
			return true
		}
	}
	return false
}

// send hands over the Start and the parts that it does not hold. io.EOF says that the executor has ended the call.
func (r *run) send(ctx context.Context, start *executorv1.Start) error {
	if err := r.stream.Send(&executorv1.ExecuteRequest{Request: &executorv1.ExecuteRequest_Start{Start: start}}); err != nil {
		return err
	}
	for i, p := range start.GetParts() {
		if !p.GetStreamed() {
			continue
		}
		if err := r.sendPart(ctx, &r.in.Parts[i]); err != nil {
			return err
		}
	}
	return r.stream.CloseSend()
}

func (r *run) sendPart(ctx context.Context, p *app.Part) error {
	if p.Path == "" {
		for data := p.Inline; len(data) > 0; {
			n := min(len(data), chunkSize)
			if err := r.sendChunk(ctx, data[:n]); err != nil {
				return err
			}
			data = data[n:]
		}
		return nil
	}
	f, err := os.Open(p.Path)
	if err != nil {
		return fmt.Errorf("read the part %s: %w", shown(p.Name), err)
	}
	defer f.Close()
	for left := p.Size; left > 0; {
		b := make([]byte, min(left, chunkSize)) // its own for each message: gRPC may still read it
		if _, err := io.ReadFull(f, b); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read the part %s: %w", shown(p.Name), err)
		}
		if err := r.sendChunk(ctx, b); err != nil {
			return err
		}
		left -= int64(len(b))
	}
	return nil
}

func (r *run) sendChunk(ctx context.Context, b []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := r.stream.Send(&executorv1.ExecuteRequest{Request: &executorv1.ExecuteRequest_Chunk{Chunk: &executorv1.Chunk{Data: b}}}); err != nil {
		return err
	}
	r.arm(r.e.cfg.Stall, errStalled)
	return nil
}
