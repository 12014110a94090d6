package nodeclient

import (
	"context"
	"errors"
	"io"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Result writes one body of a task's result to w, from offset on.
func (c *Client) Result(ctx context.Context, id, body string, w io.Writer, offset uint64) error {
	return c.persist(ctx, func(moved func()) error {
		s, err := c.GetResult(ctx, &nodev1.GetResultRequest{TaskId: id, Body: body, Offset: offset})
		if err != nil {
			return err
		}
		return copyStream(w, &offset, s.Recv, moved)
	})
}

// Logs writes a task's stderr to w; with follow until the task has ended.
func (c *Client) Logs(ctx context.Context, id string, follow bool, w io.Writer) error {
	var offset uint64
	return c.persist(ctx, func(moved func()) error {
		s, err := c.GetLogs(ctx, &nodev1.GetLogsRequest{TaskId: id, Follow: follow, Offset: offset})
		if err != nil {
			return err
		}
		return copyStream(w, &offset, s.Recv, moved)
	})
}

// Wanted is content of the repository.
type Wanted struct {
	CID  string
	Path string   // in the directory that CID is; empty for itself
	From []string // peers that should have it
}

// Listing returns what is in a directory of the repository; recursive, also what is in its directories.
func (c *Client) Listing(ctx context.Context, of Wanted, recursive bool) ([]*brokerv1.DirectoryEntry, error) {
	var all []*brokerv1.DirectoryEntry
	err := c.persist(ctx, func(moved func()) error {
		all = nil
		s, err := c.ListContent(ctx, &nodev1.ListContentRequest{Cid: of.CID, Path: of.Path, Recursive: recursive, FromPeers: of.From})
		if err != nil {
			return err
		}
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			moved()
			all = append(all, m.GetEntries()...)
		}
	})
	return all, err
}

// Content writes a file of the repository to w.
func (c *Client) Content(ctx context.Context, of Wanted, w io.Writer, progress func(done, total uint64)) error {
	var offset, total uint64
	return c.persist(ctx, func(moved func()) error {
		s, err := c.GetContent(ctx, &nodev1.GetContentRequest{Cid: of.CID, Path: of.Path, Offset: offset, FromPeers: of.From})
		if err != nil {
			return err
		}
		return copyStream(w, &offset, func() (*nodev1.GetContentResponse, error) {
			m, err := s.Recv()
			if err == nil && m.GetSize() > 0 {
				total = m.GetSize()
			}
			progress(offset, total)
			return m, err
		}, moved)
	})
}

// Watch calls fn with the task now and after every change, until it has ended or fn fails. Every change is told once,
// in order, also when the node restarts meanwhile; changes that came fast may be told as one.
func (c *Client) Watch(ctx context.Context, id string, fn func(*taskv1.Task) error) error {
	var seen uint64
	first := true
	return c.persist(ctx, func(moved func()) error {
		s, err := c.WatchTask(ctx, &nodev1.WatchTaskRequest{TaskId: id})
		if err != nil {
			return err
		}
		for {
			m, err := s.Recv()
			if err != nil {
				return ended(err)
			}
			moved()
			t := m.GetTask()
			if !first && t.GetRevision() <= seen && t.GetRevision() != 0 {
				continue
			}
			first, seen = false, t.GetRevision()
			if err := fn(t); err != nil {
				return err
			}
			if Terminal(t.GetState()) {
				return nil
			}
		}
	})
}

// Terminal tells whether a task in this state has ended.
func Terminal(state string) bool {
	switch state {
	case "COMPLETED", "FAILED", "CANCELLED", "EXPIRED":
		return true
	}
	return false
}
