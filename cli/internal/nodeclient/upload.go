package nodeclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Bounds of what travels inside the call that submits a task: one body, and all of them together. What is larger is
// uploaded first.
const (
	inlineLimit  = 128 << 10
	inlineBudget = 1 << 20
)

// chunkSize is what one message of an upload carries; a node takes 1 MiB at most.
const chunkSize = 256 << 10

// Blobs turns bodies of bytes into what a task spec takes: their bytes where they are few, else the ids of uploads.
type Blobs struct {
	Client *Client
	inline int
}

// Blob reads r to its end. progress is told how many bytes of it have been sent. Where r can be read again, an upload
// that the node did not finish is repeated.
func (b *Blobs) Blob(ctx context.Context, r io.Reader, progress func(sent uint64)) (*taskv1.Blob, error) {
	limit := min(inlineLimit, inlineBudget-b.inline)
	head, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(head) <= limit {
		b.inline += len(head)
		return &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: head}}, nil
	}
	var blob *taskv1.Blob
	whole := io.MultiReader(bytes.NewReader(head), r)
	err = b.Client.persist(ctx, func(moved func()) error {
		if whole == nil {
			if whole, err = again(r, err); err != nil {
				return err
			}
		}
		from := whole
		whole = nil
		blob, _, err = b.Client.upload(ctx, from, func(sent uint64) { moved(); progress(sent) })
		return err
	})
	return blob, err
}

// again rewinds a reader; one that cannot be leaves the error why it should be.
func again(r io.Reader, why error) (io.Reader, error) {
	s, ok := r.(io.Seeker)
	if !ok {
		return nil, fmt.Errorf("the upload broke off and what was read cannot be read again: %w", permanent{why})
	}
	if _, err := s.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("the upload broke off and what was read cannot be read again: %w", permanent{why})
	}
	return r, nil
}

// permanent hides from persist that trying again may help.
type permanent struct{ err error }

func (p permanent) Error() string { return p.err.Error() }

func (c *Client) upload(ctx context.Context, r io.Reader, progress func(uint64)) (blob *taskv1.Blob, sha256 string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream that is left open in an error would live as long as the connection
	s, err := c.Upload(ctx)
	if err != nil {
		return nil, "", err
	}
	sent, err := send(r, progress, func(b []byte) error { return s.Send(&nodev1.UploadRequest{Data: b}) })
	if err != nil {
		return nil, "", err
	}
	resp, err := s.CloseAndRecv()
	if err != nil {
		return nil, "", err
	}
	if resp.GetSize() != sent {
		return nil, "", fmt.Errorf("the node kept %d of %d bytes of an upload: try again", resp.GetSize(), sent)
	}
	return &taskv1.Blob{Source: &taskv1.Blob_UploadId{UploadId: resp.GetUploadId()}}, resp.GetSha256(), nil
}

// Put stores a file in the repository.
func (c *Client) Put(ctx context.Context, r io.Reader, progress func(sent uint64)) (*nodev1.PutContentResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.PutContent(ctx)
	if err != nil {
		return nil, err
	}
	sent, err := send(r, progress, func(b []byte) error { return s.Send(&nodev1.PutContentRequest{Data: b}) })
	if err != nil {
		return nil, err
	}
	resp, err := s.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	if resp.GetSize() != sent {
		return nil, fmt.Errorf("the node stored %d of %d bytes: try again", resp.GetSize(), sent)
	}
	return resp, nil
}

// Tree is a directory that PutTree stores.
type Tree interface {
	// Each calls file with each file, in order, and empty with each directory without any.
	Each(file func(path string, r io.Reader) error, empty func(path string) error) error
}

// PutTree stores a directory in the repository.
func (c *Client) PutTree(ctx context.Context, t Tree, progress func(sent uint64)) (*nodev1.PutContentResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.PutContent(ctx)
	if err != nil {
		return nil, err
	}
	total := uint64(0)
	out := func(m *nodev1.PutContentRequest) error {
		err := s.Send(m)
		if errors.Is(err, io.EOF) {
			err = errReceiverEnded
		}
		return err
	}
	err = out(&nodev1.PutContentRequest{Directory: true})
	if err == nil {
		err = t.Each(func(path string, r io.Reader) error {
			if err := out(&nodev1.PutContentRequest{Entry: &brokerv1.PutEntry{Path: path}}); err != nil {
				return err
			}
			n, err := send(r, func(sent uint64) { progress(total + sent) }, func(b []byte) error { return out(&nodev1.PutContentRequest{Data: b}) })
			total += n
			return err
		}, func(path string) error {
			return out(&nodev1.PutContentRequest{Entry: &brokerv1.PutEntry{Path: path, Directory: true}})
		})
	}
	if err != nil && !errors.Is(err, errReceiverEnded) {
		return nil, err
	}
	resp, err := s.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	if resp.GetSize() != total {
		return nil, fmt.Errorf("the node stored %d of %d bytes: try again", resp.GetSize(), total)
	}
	return resp, nil
}

// errReceiverEnded: why, the end of the call says.
var errReceiverEnded = errors.New("the node has ended the call")

// send reads to the end. A receiver that has ended the call early says why when the call is closed.
func send(r io.Reader, progress func(uint64), out func([]byte) error) (sent uint64, err error) {
	buf := make([]byte, chunkSize)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if serr := out(buf[:n]); errors.Is(serr, io.EOF) {
				return sent, nil
			} else if serr != nil {
				return sent, serr
			}
			sent += uint64(n)
			progress(sent)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return sent, nil
		case err != nil:
			return sent, err
		}
	}
}
