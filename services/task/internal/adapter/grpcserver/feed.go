package grpcserver

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

const (
	feedInterval = 100 * time.Millisecond // what changed meanwhile is told together, each task once
	feedTasks    = 64                     // told together at most: where more change, a list costs less
	missedAgain  = time.Second            // after a list was asked for, so that nobody lists ten times a second
)

// WatchTasks implements shallot.task.v1.
func (s *Service) WatchTasks(r *taskv1.WatchTasksRequest, stream grpc.ServerStreamingServer[taskv1.WatchTasksResponse]) error {
	if err := s.leading(); err != nil { // it hears of every change
		return err
	}
	if len(r.GetText()) > maxText {
		return fault.InvalidArgument("FILTER_INVALID", "text has %d bytes: it may have %d", len(r.GetText()), maxText)
	}
	feed := s.cfg.Reader.Feed(feedTasks)
	if feed == nil {
		return fault.ResourceExhausted("TOO_MANY_WATCHES", "all tasks are being watched %d times already, and no more can be: end some of the watches, or list tasks instead", app.MaxFeeds)
	}
	defer feed.Close()
	if err := sendMissed(stream); err != nil { // what was before: from here on nothing is lost
		return err
	}
	ctx := stream.Context()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		if !wait(ctx, pause.C) || !wait(ctx, feed.Changed()) {
			return context.Cause(ctx)
		}
		if err := s.leading(); err != nil {
			return err
		}
		missed, err := s.sendChanged(r, feed, stream)
		if err != nil {
			return err
		}
		pause.Reset(feedInterval)
		if missed {
			pause.Reset(missedAgain)
		}
	}
}

// wait is false when ctx ends first.
func wait[T any](ctx context.Context, c <-chan T) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}

func sendMissed(stream grpc.ServerStreamingServer[taskv1.WatchTasksResponse]) error {
	return stream.Send(&taskv1.WatchTasksResponse{Response: &taskv1.WatchTasksResponse_Missed{Missed: true}})
}

// sendChanged tells of what the feed has.
func (s *Service) sendChanged(r *taskv1.WatchTasksRequest, feed *app.Feed, stream grpc.ServerStreamingServer[taskv1.WatchTasksResponse]) (missed bool, err error) {
	ids, missed := feed.Take()
	if missed {
		return true, sendMissed(stream)
	}
	for _, id := range ids {
		v, err := s.cfg.Reader.Get(stream.Context(), id)
		if f := fault.From(err); f != nil && f.Code == codes.NotFound { // it is not kept any more
			continue
		}
		if err != nil {
			return false, err
		}
		if !watched(&v, r) {
			continue
		}
		if err := stream.Send(&taskv1.WatchTasksResponse{Response: &taskv1.WatchTasksResponse_Task{Task: toTask(&v, false)}}); err != nil {
			return false, err
		}
	}
	return false, nil
}

// watched tells whether a list with the same words would have the task.
func watched(v *app.TaskView, r *taskv1.WatchTasksRequest) bool {
	if r.GetType() != "" && v.Type != r.GetType() {
		return false
	}
	text := strings.ToLower(r.GetText())
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	if text == "" || has(v.ID) || v.Error != nil && (has(v.Error.Reason) || has(v.Error.Message)) {
		return true
	}
	for k, l := range v.Labels {
		if has(k + "=" + l) {
			return true
		}
	}
	return false
}
