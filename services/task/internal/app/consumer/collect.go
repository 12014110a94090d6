package consumer

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// collectRetry is the pause after a fetch that failed; the collection clock ends the trying.
const collectRetry = 2 * time.Second

func (s *Service) collectLater(taskID string) { s.collector.Add(taskID) }

// collect fetches a large result, decrypts it to a file, and makes it the outcome. It runs outside the task's lock:
// the receipt that it works from is compared again before anything is changed.
func (s *Service) collect(taskID string) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var t *domain.Task
	var key app.TaskKey
	_, err := s.change(ctx, taskID, func(e *edit) error {
		if e.t.Collecting() && s.loadKeys(e.live, taskID) == nil {
			t, key = e.t, e.key
		}
		return errUnchanged
	})
	if err != nil || t == nil {
		return
	}
	ctx, cancel = context.WithDeadline(ctx, t.Receipt.At.Add(t.Clocks.Collection))
	defer cancel()
	file, parts, err := s.fetchResult(ctx, t, key)
	if err == nil {
		err = file.Keep()
	}
	var bad spoiled
	switch {
	case err == nil:
		defer file.Drop()
	case errors.As(err, &bad):
	default:
		s.cfg.Log.Warn("a result could not be fetched and will be tried again", "error", err.Error())
		if a := t.Attempt(t.Receipt.Attempt); a != nil { // node dials those that may have it
			s.cfg.Pusher.Push(ctx, app.Reply{Outbox: s.askReplicas(taskID, a)})
		}
		s.again(taskID)
		return
	}
	r, err := s.change(context.WithoutCancel(ctx), taskID, func(e *edit) error {
		if !e.t.Collecting() || e.t.Receipt.Hash != t.Receipt.Hash || e.t.Receipt.Attempt != t.Receipt.Attempt {
			return errUnchanged
		}
		if bad != "" {
			return s.spoil(e, string(bad))
		}
		if err := s.settle(e, &domain.Result{CID: e.t.Receipt.CID, Parts: parts, InFile: true}); err != nil {
			return err
		}
		s.addStdout(ctx, e.t, &e.reply)
		return nil
	})
	if err != nil {
		s.again(taskID)
		return
	}
	s.cfg.Pusher.Push(s.ctx, r)
}

// spoiled says what is wrong with a result; fetching it again would not help.
type spoiled string

func (b spoiled) Error() string { return string(b) }

func (s *Service) again(taskID string) {
	if s.ctx.Err() != nil {
		return
	}
	time.AfterFunc(collectRetry, func() { s.collector.Add(taskID) })
}

// fetchResult streams: fetch, hash, decrypt, check, write. Nothing is whole in memory.
func (s *Service) fetchResult(ctx context.Context, t *domain.Task, key app.TaskKey) (ResultFile, []domain.Part, error) {
	rc := t.Receipt
	from := []string{rc.Peer}
	if a := t.Attempt(rc.Attempt); a != nil {
		from = append(from, peersOf(a.Holders())...)
	}
	src, err := s.cfg.Repository.Get(ctx, rc.Persona, rc.CID, from, rc.Size)
	if err != nil {
		return nil, nil, err
	}
	defer src.Close()
	in := app.NewHashingReader(src)
	parts, file, err := s.decryptTo(t, key, in)
	if err != nil && in.Err != nil { // the fetch broke off: that says nothing of the result
		err = in.Err
	}
	if err == nil && (in.N != rc.Size || in.Sum() != rc.Hash) {
		err = spoiled("the result is not what its receipt says")
	}
	if err != nil {
		if file != nil {
			file.Drop()
		}
		return nil, nil, err
	}
	return file, parts, nil
}

func (s *Service) decryptTo(t *domain.Task, key app.TaskKey, in io.Reader) ([]domain.Part, ResultFile, error) {
	plain, err := key.Decrypt(in)
	if err != nil {
		return nil, nil, spoiled("the result is not encrypted to the task's key")
	}
	h, err := s.readResult(t, plain, t.Receipt.Size)
	if err != nil {
		return nil, nil, spoiled(err.Error())
	}
	file, err := s.cfg.Results.Create(t.ID)
	if err != nil {
		return nil, nil, err
	}
	if err := copyParts(file, plain, h); app.BadData(err) {
		return nil, file, spoiled(err.Error())
	} else if err != nil {
		return nil, file, err
	}
	return h.Parts, file, nil
}
