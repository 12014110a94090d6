package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"github.com/shallot-net/shallot/kit/padding"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// packedResult is an encrypted result.
type packedResult struct {
	ciphertext []byte // where it is small
	hash       domain.Hash
	size       int64
	cid        string
}

// overhead is more than encryption to a hybrid recipient adds to a result of at most 64 KiB.
const overhead = 3 << 10

const resultKind = "task:"

func resultOwner(taskID string) string { return resultKind + taskID }

// readers are the peers that may fetch an entry's result from here: its consumer, and those that were named to keep it.
func readers(e *domain.Entry) []string {
	out := []string{e.Consumer}
	for _, r := range e.Replicas {
		if domain.ValidPeer(r.Peer) && len(out) < app.MaxReaders {
			out = append(out, r.Peer)
		}
	}
	return out
}

// sealer encrypts one result to its task's key. The key agreement takes as long as a small run, and needs nothing of
// it: it is made beside the run.
type sealer struct {
	ready chan struct{}
	out   relay
	w     io.WriteCloser
	err   error
}

// relay keeps what is written until it is told where that goes.
type relay struct {
	buf bytes.Buffer
	dst io.Writer
}

func (r *relay) Write(b []byte) (int, error) {
	if r.dst == nil {
		return r.buf.Write(b)
	}
	return r.dst.Write(b)
}

func (r *relay) to(dst io.Writer) error {
	r.dst = dst
	_, err := r.buf.WriteTo(dst)
	return err
}

func (s *Service) newSealer(recipient string, key []byte) *sealer {
	e := &sealer{ready: make(chan struct{})}
	s.runs.Go(func() {
		defer close(e.ready)
		e.w, e.err = s.cfg.Cipher.EncryptResult(recipient, key, &e.out)
	})
	return e
}

func (e *sealer) encrypt(header []byte, bodies []*spool, pad int64) error {
	if err := app.WriteHeader(e.w, header); err != nil {
		return err
	}
	for _, b := range bodies {
		if err := b.copyTo(e.w); err != nil {
			return err
		}
	}
	if err := padding.Write(e.w, pad); err != nil {
		return err
	}
	return e.w.Close()
}

// packResult encrypts what the run gave to the task's key. A failure without any output has no result: nil. A large
// one goes into the repository as it is encrypted.
func (s *Service) packResult(entry *domain.Entry, e *sealer, out *domain.Outcome, sink *sink) (*packedResult, error) {
	if out.Cause != 0 && sink.total() == 0 {
		return nil, nil
	}
	bodies := sink.order()
	header := &app.ResultHeader{TaskID: entry.TaskID, ExitCode: out.ExitCode, Reason: out.Reason, Message: out.Message, Usage: out.Usage, Parts: make([]domain.Part, len(bodies))}
	total := int64(4)
	for i, b := range bodies {
		header.Parts[i] = b.part()
		total += b.size
	}
	encoded := s.cfg.Codec.EncodeResultHeader(header)
	total += int64(len(encoded))
	if s.cfg.Anonymous {
		header.Padding, total = app.Padding(total)
		encoded = s.cfg.Codec.EncodeResultHeader(header)
	}
	if <-e.ready; e.err != nil {
		return nil, e.err
	}
	if total+overhead > app.SmallLimit {
		return s.packLarge(entry, e, encoded, bodies, header.Padding)
	}
	e.out.buf.Grow(int(total) + overhead)
	if err := e.encrypt(encoded, bodies, header.Padding); err != nil {
		return nil, err
	}
	b := e.out.buf.Bytes()
	sum := domain.Hash(sha256.Sum256(b))
	return &packedResult{ciphertext: b, hash: sum, size: int64(len(b)), cid: app.SmallCID(sum)}, nil
}

func (s *Service) packLarge(entry *domain.Entry, e *sealer, header []byte, bodies []*spool, pad int64) (*packedResult, error) {
	r, w := io.Pipe()
	out := app.NewHashingWriter(w)
	done := make(chan error, 1)
	go func() {
		err := e.out.to(out)
		if err == nil {
			err = e.encrypt(header, bodies, pad)
		}
		w.CloseWithError(err)
		done <- err
	}()
	cid, err := s.cfg.Repository.Put(s.ctx, entry.Persona, r, app.Pin{Owner: s.ownerOf(entry), Keep: entry.Sub.Keep, Readers: readers(entry)})
	r.CloseWithError(io.ErrClosedPipe) // ends the goroutine when Put did not read to the end
	if encErr := <-done; encErr != nil && !errors.Is(encErr, io.ErrClosedPipe) {
		return nil, encErr
	}
	if err != nil {
		return nil, err
	}
	return &packedResult{hash: out.Sum(), size: out.N, cid: cid}, nil
}

// settle commits how an attempt ended, together with the event that tells of it, and says so: in the answer to its
// delivery when that still waits, else by itself. out is nil when the attempt was broken off and has to run again.
func (s *Service) settle(h *held, out *domain.Outcome, res *packedResult) {
	defer h.stop()
	if out == nil {
		s.abandon(h)
		return
	}
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		done, push := s.trySettle(h, out, res)
		if done {
			s.forget(h, true)
			s.watch.Tell(h.key.TaskID)
			if push != nil {
				s.cfg.Pusher.Push(s.ctx, *push)
			}
			return
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			s.abandon(h)
			return
		}
	}
}

// abandon leaves an attempt to the next process, when it is in the journal.
func (s *Service) abandon(h *held) {
	h.mu.Lock()
	if !h.journaled {
		h.reply = verdict(app.Again, "")
	}
	close(h.settled)
	h.mu.Unlock()
	s.forget(h, false)
}

// trySettle is one try. push is what has to be said when nobody waits for the answer.
func (s *Service) trySettle(h *held, out *domain.Outcome, res *packedResult) (done bool, push *app.Reply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dropped {
		close(h.settled)
		return true, nil
	}
	e := h.entry.Clone()
	o := *out
	if res != nil {
		o.ResultHash, o.ResultSize, o.ResultCID = res.hash, res.size, res.cid
	}
	if err := e.End(time.Now(), o); err != nil {
		s.cfg.Log.Error("an attempt ended twice", "error", err.Error())
		close(h.settled)
		return true, nil
	}
	e.Revision++
	row := s.receipt(e)
	w := &app.Writes{Outbox: []app.OutboxRow{row}}
	ew := app.EntryWrite{Entry: e, Insert: !h.journaled, Forget: h.journaled}
	var small []byte
	if res != nil {
		small = res.ciphertext
		ew.Result = small
	}
	s.fleet.told(&ew)
	w.Entries = []app.EntryWrite{ew}
	if _, waits := s.outbox.Get(h.accepted); waits && h.accepted != 0 { // how it ended says more
		w.Sent = []uint64{h.accepted}
	}
	put := s.putSide(e, small)
	err := s.cfg.Store.Commit(context.Background(), w)
	put()
	if err != nil {
		return s.settleFailed(h, err)
	}
	h.entry = e
	s.mu.Lock()
	s.recent.add(h.key, e)
	s.mu.Unlock()
	if s.speaks() {
		s.outbox.Track(row)
		s.replicateLater(e)
	}
	for _, id := range w.Sent {
		s.outbox.Take(id)
	}
	s.cfg.Metrics.Ended(e.State.String(), o.Reason)
	v := view(e, 0)
	r := app.Reply{Task: &v, Outbox: append(withdrawn(w.Sent, e), row.Outgoing(small))}
	h.logs.close()
	if h.journaled {
		push = &r
	} else {
		h.reply, h.journaled = r, true
	}
	close(h.settled)
	return true, push
}

// withdrawn tells node not to send events any more.
func withdrawn(ids []uint64, e *domain.Entry) []app.Outgoing {
	var out []app.Outgoing
	for _, id := range ids {
		out = append(out, app.Outgoing{ID: id, TaskID: e.TaskID, Persona: e.Persona, Peer: e.Consumer, Withdrawn: true})
	}
	return out
}

// settleFailed decides what a failed commit means. h.mu is held.
func (s *Service) settleFailed(h *held, err error) (done bool, push *app.Reply) {
	switch {
	case errors.Is(err, app.ErrRepeated), errors.Is(err, app.ErrExists):
		h.reply = verdict(app.Ignored, "REPEATED") // another replica was faster
	case errors.Is(err, app.ErrConflict):
		fresh, readErr := s.cfg.Store.Entry(context.Background(), h.key)
		if readErr != nil {
			return false, nil
		}
		if !fresh.State.Terminal() {
			h.entry = fresh
			return false, nil
		}
	case !h.journaled: // nothing has been promised
		s.cfg.Log.Warn("a result could not be committed", "error", err.Error())
		s.unwritten.Store(true)
		h.reply = verdict(app.Again, "")
		close(h.settled)
		s.forget(h, false)
		return true, nil
	default:
		s.cfg.Log.Warn("a result could not be committed and will be tried again", "error", err.Error())
		return false, nil
	}
	close(h.settled)
	return true, nil
}

// receipt is the event that tells how an attempt ended.
func (s *Service) receipt(e *domain.Entry) app.OutboxRow {
	row := s.outbox.Row(app.Address{Persona: e.Persona, Peer: e.Consumer}, domain.Ref{TaskID: e.TaskID, Attempt: e.Sub.Attempt}, receiptBody(e))
	row.Sign = true
	if !e.Outcome.ResultHash.IsZero() && e.Outcome.ResultSize <= app.SmallLimit {
		row.Attach = app.AttachResult
	}
	return row
}

func receiptBody(e *domain.Entry) domain.Body {
	o := e.Outcome
	if o.Cause != 0 {
		return &domain.FailureEvent{TaskID: e.TaskID, Attempt: e.Sub.Attempt, Type: e.Sub.Type, Cause: o.Cause, Reason: o.Reason, Message: o.Message, Usage: o.Usage,
			ResultHash: o.ResultHash, ResultSize: o.ResultSize, ResultCID: o.ResultCID, PayloadHash: e.Sub.PayloadHash}
	}
	return &domain.ResultEvent{TaskID: e.TaskID, Attempt: e.Sub.Attempt, Type: e.Sub.Type, ProgramHash: o.Program, PayloadHash: e.Sub.PayloadHash,
		ResultHash: o.ResultHash, ResultSize: o.ResultSize, ResultCID: o.ResultCID, ExitCode: o.ExitCode, Limits: e.Limits, Usage: o.Usage}
}

// putTimeout is how long a small result may take to get into the repository. It rides in its event as well.
const putTimeout = 2 * time.Second

// putSide puts a small result into the repository beside the commit. The returned function waits for it.
func (s *Service) putSide(e *domain.Entry, small []byte) func() {
	if small == nil {
		return func() {}
	}
	done := make(chan struct{})
	s.runs.Go(func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(s.ctx, putTimeout)
		defer cancel()
		cid, err := s.cfg.Repository.PutSmall(ctx, e.Persona, small, app.Pin{Owner: s.ownerOf(e), Keep: e.Sub.Keep, Readers: readers(e)})
		if err != nil {
			s.cfg.Log.Warn("a small result is not in the repository; its event carries it", "error", err.Error())
		} else if cid != e.Outcome.ResultCID {
			s.cfg.Log.Error("the repository stores small content otherwise than expected: receipts name another CID")
		}
	})
	return func() { <-done }
}
