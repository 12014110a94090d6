package provider

import (
	"context"
	"strconv"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// view is an attempt as the provider's people see it.
func view(e *domain.Entry, position uint32) app.TaskView {
	v := app.TaskView{ID: e.TaskID, Type: e.Sub.Type, Consumer: e.Consumer, State: e.State, Attempts: e.Sub.Attempt, CreatedAt: e.CreatedAt, StartedAt: e.StartedAt,
		FinishedAt: e.EndedAt, Limits: e.Limits, QueuePosition: position, Revision: e.Revision, History: history(e), ReplicaPeers: e.Replicas, Replicas: e.Sub.Copies}
	if e.Sub.Copies > 0 {
		v.Replicas++
	}
	if e.What != "" && !e.IsReplica() {
		v.Error = &domain.Failure{Reason: e.What, Message: "the task was handed on to another provider"}
	}
	if o := e.Outcome; o != nil {
		v.Usage = o.Usage
		if o.Cause == 0 {
			code := o.ExitCode
			v.ExitCode = &code
		} else {
			v.Error = &domain.Failure{Reason: o.Reason, Message: o.Message}
		}
		if o.ResultCID != "" {
			v.Result = &domain.Result{CID: o.ResultCID}
		}
	}
	return v
}

// history is made of what the journal keeps.
func history(e *domain.Entry) []domain.HistoryEntry {
	n := e.Sub.Attempt
	out := []domain.HistoryEntry{{At: e.CreatedAt, Attempt: n, State: domain.Accepted, What: "ACCEPTED", Peer: e.Consumer}}
	if e.IsReplica() {
		out[0].What, out[0].Detail = domain.WhatReplica, "another provider's result, kept for its consumer"
	} else if e.What != "" {
		out[0].State, out[0].What = e.State, e.What
		return out
	}
	if !e.StartedAt.IsZero() {
		h := domain.HistoryEntry{At: e.StartedAt, Attempt: n, State: domain.Running, What: "STARTED"}
		if e.Runs > 1 {
			h.Detail = "started " + strconv.FormatUint(uint64(e.Runs), 10) + " times"
		}
		out = append(out, h)
	}
	if e.State.Terminal() {
		h := domain.HistoryEntry{At: e.EndedAt, Attempt: n, State: e.State, What: e.State.String()}
		if e.Outcome != nil && e.Outcome.Reason != "" {
			h.Detail = e.Outcome.Reason + ": " + e.Outcome.Message
		}
		out = append(out, h)
	}
	return out
}

// Get returns the newest attempt of a task.
func (s *Service) Get(ctx context.Context, id string) (app.TaskView, error) {
	s.mu.Lock()
	var best *held
	for k, h := range s.held {
		if k.TaskID == id && (best == nil || k.Attempt > best.key.Attempt) {
			best = h
		}
	}
	s.mu.Unlock()
	if best != nil {
		best.mu.Lock()
		e := best.entry
		best.mu.Unlock()
		return view(e, s.position(best)), nil
	}
	entries, err := s.cfg.Store.Entries(ctx, id)
	if err != nil {
		return app.TaskView{}, err
	}
	if len(entries) == 0 {
		if len(id) > 64 {
			id = id[:64]
		}
		return app.TaskView{}, fault.NotFound("TASK_NOT_FOUND", "there is no task %q on this node", id).With("task_id", id)
	}
	return view(entries[0], 0), nil
}

// List returns attempts, newest first.
func (s *Service) List(ctx context.Context, f app.TaskFilter) ([]app.TaskView, error) {
	entries, err := s.cfg.Store.ListEntries(ctx, f)
	if err != nil {
		return nil, err
	}
	out := make([]app.TaskView, len(entries))
	for i, e := range entries {
		out[i] = view(e, 0)
	}
	return out, nil
}
