package consumer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// onResult takes a receipt: a small result is opened at once, a large one is collected afterwards.
func (s *Service) onResult(ctx context.Context, d *app.Delivery, b *domain.ResultEvent) app.Reply {
	return s.onReceipt(ctx, d, b.TaskID, b.PayloadHash, domain.Receipt{Attempt: b.Attempt, Peer: d.Event.Author, ExitCode: b.ExitCode, Usage: b.Usage, Limits: b.Limits,
		Program: b.ProgramHash, Hash: b.ResultHash, Size: b.ResultSize, CID: b.ResultCID})
}

// diedPause is how long a provider whose executor died is not asked again. Others are asked at once; but it may be the only one, and its
// executor is started again. Attempts are counted all the same.
const diedPause = 5 * time.Second

func again(reason string) time.Duration {
	if reason == "EXECUTOR_DIED" {
		return diedPause
	}
	return 0
}

// onFailure takes the end of an attempt: the program's own is the task's outcome, a provider's is worth another attempt.
func (s *Service) onFailure(ctx context.Context, d *app.Delivery, b *domain.FailureEvent) app.Reply {
	if b.Cause != domain.CauseProvider {
		return s.onReceipt(ctx, d, b.TaskID, b.PayloadHash, domain.Receipt{Attempt: b.Attempt, Peer: d.Event.Author, Cause: b.Cause, Reason: b.Reason, Message: b.Message,
			Usage: b.Usage, Hash: b.ResultHash, Size: b.ResultSize, CID: b.ResultCID})
	}
	return s.apply(ctx, d, b.TaskID, func(e *edit) error {
		if d.Event.Author == "" || b.PayloadHash != e.t.PayloadHash {
			return rejection("RECEIPT_INVALID")
		}
		if b.Reason == app.ReasonPayloadUnavailable {
			s.shares.doubt()
		}
		err := s.endAttempt(e, b.Attempt, d.Event.Author, domain.End{What: "FAILED_AT_PROVIDER", Reason: b.Reason, Message: b.Message, RetryAfter: again(b.Reason)})
		if err != nil {
			return s.tooLate(e, b.Attempt, d.Event.Author, err, true)
		}
		s.addRelease(e, e.t.Attempt(b.Attempt))
		return nil
	})
}

// stopped is a provider's word that it stopped an attempt, of a task that goes on: one that was taken from it, and told so. If it was not,
// then it has failed.
func (s *Service) stopped(e *edit, rc *domain.Receipt) error {
	err := s.endAttempt(e, rc.Attempt, rc.Peer, domain.End{What: "FAILED_AT_PROVIDER", Reason: "STOPPED", Message: "the provider stopped the program, and nobody had asked it to"})
	if err != nil {
		return s.tooLate(e, rc.Attempt, rc.Peer, err, true)
	}
	s.addRelease(e, e.t.Attempt(rc.Attempt))
	return nil
}

func (s *Service) onReceipt(ctx context.Context, d *app.Delivery, taskID string, payload domain.Hash, rc domain.Receipt) app.Reply {
	small := len(d.Event.Attachment) > 0
	if rc.Peer == "" || small && (int64(len(d.Event.Attachment)) != rc.Size || sha256.Sum256(d.Event.Attachment) != rc.Hash) {
		return verdict(app.Rejected, "RECEIPT_INVALID")
	}
	collect := false
	r := s.apply(ctx, d, taskID, func(e *edit) error {
		if payload != e.t.PayloadHash || rc.Cause == 0 && rc.Program != e.t.ProgramHash {
			return rejection("RECEIPT_INVALID")
		}
		if rc.Cause == domain.CauseCancelled && !e.t.CancelRequested && !e.t.State.Terminal() {
			return s.stopped(e, &rc)
		}
		if err := s.fromReplica(e, d, &rc); err != nil {
			return err
		}
		if err := e.t.Receive(e.now, rc); err != nil {
			if d.From != rc.Peer && isLate(err) && e.t.State.Terminal() {
				return s.lateReplica(e, rc.Attempt, d.From)
			}
			return s.tooLate(e, rc.Attempt, rc.Peer, err, e.t.State.Terminal())
		}
		s.opened(e, rc.Attempt, rc.Peer)
		e.live.lease = time.Time{}
		switch {
		case small:
			return s.openSmall(e, d.Event.Attachment)
		case rc.Size == 0 && rc.Cause != 0:
			return s.settle(e, nil)
		case rc.Size > s.cfg.MaxResult || rc.CID == "":
			return s.spoil(e, fmt.Sprintf("the result has %s, and this node takes %s", domain.Bytes(rc.Size), domain.Bytes(s.cfg.MaxResult)))
		}
		collect = true
		return nil
	})
	if collect && r.Delivered == nil {
		s.collectLater(taskID)
	}
	return r
}

// tooLate has a provider let go what nobody will fetch: or it would keep it for a day. over: no result of the attempt is awaited any more.
func (s *Service) tooLate(e *edit, n uint32, peer string, err error, over bool) error {
	err = s.mayCome(e, n, peer, err)
	if a := e.t.Attempt(n); isLate(err) && a != nil && (over || a.Peer != peer) {
		return s.unwanted(e, a, peer)
	}
	return err
}

// unwanted lets go a result that came after the end.
func (s *Service) unwanted(e *edit, a *domain.Attempt, peer string) error {
	r := app.ReleaseRow{TaskID: e.t.ID, Attempt: a.Number, Persona: a.Persona, Peer: peer}
	if peer == a.Peer {
		r.Addresses = a.Addresses
	}
	e.after = append(e.after, func() { s.let.add(0, r) })
	return errUnchanged
}

// openSmall decrypts a result that came with its receipt, and makes it the outcome.
func (s *Service) openSmall(e *edit, ciphertext []byte) error {
	if err := s.loadKeys(e.live, e.t.ID); err != nil {
		return err
	}
	plain, err := e.key.Open(ciphertext)
	if err != nil {
		return s.spoil(e, "the result is not encrypted to the task's key")
	}
	src := bytes.NewReader(plain)
	h, err := s.readResult(e.t, src, int64(len(plain)))
	if err != nil {
		return s.spoil(e, err.Error())
	}
	body := plain[len(plain)-src.Len():]
	if err := copyParts(io.Discard, src, h); err != nil {
		return s.spoil(e, err.Error())
	}
	e.body = body[:int64(len(body))-h.Padding] // it has that much: copyParts has seen it
	if err := s.settle(e, &domain.Result{CID: e.t.Receipt.CID, Parts: h.Parts}); err != nil {
		return err
	}
	if p, off, ok := e.t.Result.Part("stdout"); ok && e.t.State == domain.Completed {
		e.reply.Stdout, e.reply.HasStdout = e.body[off:off+p.Size], true
	}
	return nil
}

// readResult reads a result's header and holds it against the receipt.
func (s *Service) readResult(t *domain.Task, plain io.Reader, total int64) (*app.ResultHeader, error) {
	b, err := app.ReadHeader(plain, total)
	if err != nil {
		return nil, err
	}
	h, err := s.cfg.Codec.DecodeResultHeader(b)
	if err != nil {
		return nil, fmt.Errorf("the result's header is bad: %w", err)
	}
	if h.TaskID != t.ID {
		return nil, errors.New("the result is another task's")
	}
	if t.Receipt.Cause == 0 && h.ExitCode != t.Receipt.ExitCode {
		return nil, fmt.Errorf("the result's exit code is %d and the receipt's %d", h.ExitCode, t.Receipt.ExitCode)
	}
	return h, nil
}

// copyParts copies the parts' bytes to dst, and makes sure that each is what the header says, and that nothing follows but padding.
func copyParts(dst io.Writer, plain io.Reader, h *app.ResultHeader) error {
	for _, p := range h.Parts {
		if err := app.CopyPart(dst, plain, p); err != nil {
			return fmt.Errorf("the result's %s: %w", p.Name, err)
		}
	}
	return app.AtEnd(plain, h.Padding)
}

// settle makes the receipt the task's outcome, and lets everybody else go.
func (s *Service) settle(e *edit, result *domain.Result) error {
	winner := e.t.Receipt.Attempt
	if err := e.t.Settle(e.now, result); err != nil {
		return err
	}
	for _, id := range e.rows { // a result implies that the submission has arrived: nothing is withdrawn
		e.w.Sent = append(e.w.Sent, id)
		e.after = append(e.after, func() { s.outbox.Take(id) })
	}
	e.live.rows = nil
	for i := range e.t.Attempts {
		a := &e.t.Attempts[i]
		if a.Number != winner && slices.Contains([]string{"COMPLETED", "FAILED", "CANCELLED"}, a.Ended) {
			s.sendCancel(e, a) // it was still at work on the same
			s.addRelease(e, a) // or had ended while this one's result was fetched
		}
	}
	s.letGo(e)
	if r := e.t.Receipt; r.Usage.Wall > 0 {
		s.cfg.Metrics.Run(e.t.Type, r.Usage.Wall)
	}
	return nil
}

// spoil gives up an attempt whose result is not what it should be.
func (s *Service) spoil(e *edit, why string) error {
	n := e.t.Receipt.Attempt
	if a := e.t.Attempt(n); a != nil {
		s.addRelease(e, a)
		s.releaseReplicas(e, a) // they have the same
	}
	if err := e.t.Spoil(e.now, why); err != nil {
		return err
	}
	s.cfg.Metrics.Attempt("RESULT_INVALID")
	if a := e.t.Live(); a != nil { // a newer one; its end may have come when it was not wanted
		s.renew(e)
		s.ask(e, a)
	}
	s.next(e)
	return nil
}
