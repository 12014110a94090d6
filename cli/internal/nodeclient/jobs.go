package nodeclient

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/rpc"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// shardsTimeout is how long a call may take that brings many inputs, which the node writes to its disk.
const shardsTimeout = time.Minute

// MakeJob makes a job, or returns the one that has this request id.
func (c *Client) MakeJob(ctx context.Context, requestID string, spec *taskv1.JobSpec) (*taskv1.Job, error) {
	var j *taskv1.Job
	err := c.persist(ctx, func(func()) error {
		resp, err := c.CreateJob(ctx, &nodev1.CreateJobRequest{RequestId: requestID, Spec: spec}, rpc.Timeout(submitTimeout))
		j = resp.GetJob()
		return err
	})
	return j, err
}

// AddInputs gives a job some of its inputs. It may be repeated.
func (c *Client) AddInputs(ctx context.Context, id string, shards []*taskv1.NewShard) (*taskv1.Job, error) {
	var j *taskv1.Job
	err := c.persist(ctx, func(func()) error {
		resp, err := c.AddShards(ctx, &nodev1.AddShardsRequest{JobId: id, Shards: shards}, rpc.Timeout(shardsTimeout))
		j = resp.GetJob()
		return err
	})
	return j, err
}

// Pause lets no more shards of a job start.
func (c *Client) Pause(ctx context.Context, id string) (*taskv1.Job, error) {
	var j *taskv1.Job
	err := c.persist(ctx, func(func()) error {
		resp, err := c.PauseJob(ctx, &nodev1.PauseJobRequest{JobId: id})
		j = resp.GetJob()
		return err
	})
	return j, err
}

// Resume goes on with a paused job.
func (c *Client) Resume(ctx context.Context, id string) (*taskv1.Job, error) {
	var j *taskv1.Job
	err := c.persist(ctx, func(func()) error {
		resp, err := c.ResumeJob(ctx, &nodev1.ResumeJobRequest{JobId: id})
		j = resp.GetJob()
		return err
	})
	return j, err
}

// EndJob cancels a job.
func (c *Client) EndJob(ctx context.Context, id string) (*taskv1.Job, error) {
	var j *taskv1.Job
	err := c.persist(ctx, func(func()) error {
		resp, err := c.CancelJob(ctx, &nodev1.CancelJobRequest{JobId: id})
		j = resp.GetJob()
		return err
	})
	return j, err
}

// JobNews is what a job that is followed says: the job after a change, or a shard that has ended.
type JobNews struct {
	Job   *taskv1.Job
	Shard *taskv1.EndedShard
}

// FollowJob calls fn with the job now and after its changes, and once with every shard that has ended, in the order of their ends, until
// the job has ended or fn fails. A node that restarts meanwhile goes on where it was.
func (c *Client) FollowJob(ctx context.Context, id string, stdout bool, fn func(JobNews) error) error {
	var after uint64
	return c.persist(ctx, func(moved func()) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s, err := c.WatchJob(ctx, &nodev1.WatchJobRequest{JobId: id, After: after, Stdout: stdout})
		if err != nil {
			return err
		}
		over := false
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) && over {
				return nil
			}
			if errors.Is(err, io.EOF) {
				return fault.Unavailable("STREAM_SHORT", "the node ended the call before the job")
			}
			if err != nil {
				return err
			}
			moved()
			if err := fn(JobNews{m.GetJob(), m.GetShard()}); err != nil {
				return err
			}
			after = max(after, m.GetShard().GetShard().GetEnded())
			over = over || JobOver(m.GetJob().GetState())
		}
	})
}

// JobOver tells whether a job in this state has ended.
func JobOver(state string) bool {
	switch state {
	case "COMPLETED", "FAILED", "CANCELLED":
		return true
	}
	return false
}

// SendFile uploads a body whose hash is known, and makes sure that it arrived as it was.
func (c *Client) SendFile(ctx context.Context, open func() (io.ReadCloser, error), sha256 string, progress func(sent uint64)) (*taskv1.Blob, error) {
	var blob *taskv1.Blob
	err := c.persist(ctx, func(moved func()) error {
		f, err := open()
		if err != nil {
			return err
		}
		defer f.Close()
		var sum string
		blob, sum, err = c.upload(ctx, f, func(sent uint64) { moved(); progress(sent) })
		if err == nil && sum != sha256 {
			return ErrChanged
		}
		return err
	})
	return blob, err
}

// ErrChanged is a file that was written to while it was read.
var ErrChanged = errors.New("it has changed while it was read: start again when nothing writes to it")
