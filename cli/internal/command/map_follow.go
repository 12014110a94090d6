package command

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/render"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

const (
	// mapWriters is how many results are fetched and written at once.
	mapWriters = 8
	// plainEvery is how often progress is said where there is no terminal.
	plainEvery = 10 * time.Second
	jsonEvery  = time.Second
)

// collection writes results as they come.
type collection struct {
	*mapRun
	ctx   context.Context
	queue chan *taskv1.EndedShard
	wg    sync.WaitGroup

	mu       sync.Mutex
	job      *taskv1.Job
	failures []*taskv1.Shard
	broken   error // the first that keeps results from being written
	began    time.Time
	first    uint32 // inputs done when it began
	told     time.Time
}

// follow writes the results of a job until it has ended, or the user stops it: then it is paused.
func (m *mapRun) follow(ctx context.Context, job *taskv1.Job, interrupted bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &collection{mapRun: m, ctx: ctx, queue: make(chan *taskv1.EndedShard, mapWriters), job: job, began: time.Now(), told: time.Now(), first: done(job)}
	for range mapWriters {
		c.wg.Go(c.write)
	}
	ended := make(chan error, 1)
	go func() { ended <- m.client.FollowJob(ctx, job.GetId(), true, c.hear) }()
	paused := make(chan error, 1)
	pause := func() {
		m.line.Stop()
		m.say("pausing the job; Ctrl-C again leaves at once")
		go func() { _, err := m.client.Pause(ctx, job.GetId()); paused <- err }()
	}
	if interrupted {
		pause()
	}
	for interrupts := 0; ; {
		select {
		case err := <-ended:
			close(c.queue)
			c.wg.Wait()
			m.line.Stop()
			return c.end(err)
		case err := <-paused:
			return c.leave(cancel, ended, err)
		case <-m.Interrupts:
			if interrupts++; interrupts > 1 || interrupted {
				m.say("left job %s as it is; 'shallot job show %s' says how it is", job.GetId(), render.ShortID(job.GetId()))
				return &codeError{code: exitInterrupted}
			}
			pause()
		}
	}
}

// leave ends the command after the job was paused: what came is written.
func (c *collection) leave(cancel func(), ended <-chan error, err error) error {
	if err != nil && codeOf(err) == exitState { // it had just ended: the stream says how
		err = <-ended
		close(c.queue)
		c.wg.Wait()
		return c.end(err)
	}
	cancel()
	followed := <-ended
	close(c.queue)
	c.wg.Wait()
	if followed == nil { // it ended before it heard of the pause
		return c.end(nil)
	}
	if err != nil {
		return fmt.Errorf("cannot pause job %s: %w", c.job.GetId(), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return fmt.Errorf("job %s is paused: %w", c.job.GetId(), c.broken)
	}
	return &codeError{exitInterrupted, fmt.Errorf("job %s is paused, %d of %d inputs are done: the same command goes on with it", c.job.GetId(), done(c.job), c.job.GetTotal())}
}

// hear takes what the job says, in order.
func (c *collection) hear(n nodeclient.JobNews) error {
	if n.Job != nil {
		c.mu.Lock()
		c.job = n.Job
		c.mu.Unlock()
		return c.progress(n.Job)
	}
	c.mu.Lock()
	broken := c.broken
	if n.Shard.GetShard().GetState() != "COMPLETED" {
		c.failures = append(c.failures, n.Shard.GetShard())
	}
	c.mu.Unlock()
	if broken != nil {
		return broken
	}
	select {
	case c.queue <- n.Shard:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

func (c *collection) write() {
	for s := range c.queue {
		path := ""
		if s.GetShard().GetState() == "COMPLETED" {
			path = filepath.Join(c.flags.output, s.GetShard().GetName())
			if err := c.result(s, path); err != nil {
				c.mu.Lock()
				if c.broken == nil && c.ctx.Err() == nil {
					c.broken = fmt.Errorf("cannot write the result %s: %w", path, err)
				}
				c.mu.Unlock()
				continue
			}
		}
		if c.json() {
			c.mu.Lock()
			_ = c.out().Line(render.Object{{Name: "event", Value: "input"}, {Name: "file", Value: path}, {Name: "shard", Value: render.Proto(s.GetShard())}})
			c.mu.Unlock()
		}
	}
}

// result writes what a shard printed. A file that has it already stays as it is.
func (c *collection) result(s *taskv1.EndedShard, path string) error {
	sh := s.GetShard()
	if !filepath.IsLocal(sh.GetName()) || filepath.Base(sh.GetName()) != sh.GetName() {
		return fmt.Errorf("the node names a result %q, which is no file name", sh.GetName())
	}
	if same(path, sh) {
		return nil
	}
	sum := sha256.New()
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(c.flags.output), renameio.WithPermissions(0o644), renameio.WithExistingPermissions())
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	dst := io.MultiWriter(f, sum)
	if s.Stdout != nil {
		_, err = io.Copy(dst, bytes.NewReader(s.GetStdout()))
	} else {
		err = c.client.Result(c.ctx, sh.GetTaskId(), "stdout", dst, 0)
	}
	if err == nil && hex.EncodeToString(sum.Sum(nil)) != sh.GetStdoutSha256() {
		err = errors.New("what the node sent is not what its hash says")
	}
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	return err
}

// same tells whether a file has what a shard printed.
func same(path string, sh *taskv1.Shard) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || uint64(info.Size()) != sh.GetStdoutSize() { //nolint:gosec // no file is shorter than nothing
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == sh.GetStdoutSha256()
}

// progress says how far the job is: a bar on a terminal, lines now and then elsewhere.
func (c *collection) progress(j *taskv1.Job) error {
	n, k := done(j), j.GetCounts()
	text := fmt.Sprintf("%d at providers", k.GetRunning())
	if k.GetFailed() > 0 {
		text += fmt.Sprintf(", %d failed", k.GetFailed())
	}
	if k.GetExtra() > 0 {
		text += fmt.Sprintf(", %d extra runs", k.GetExtra())
	}
	c.line.Count(text, uint64(n), uint64(j.GetTotal()))
	every := plainEvery
	if c.json() {
		every = jsonEvery
	}
	if time.Since(c.told) < every && !nodeclient.JobOver(j.GetState()) {
		return nil
	}
	c.told = time.Now()
	rate := float64(n-min(n, c.first)) / time.Since(c.began).Seconds()
	left := time.Duration(0)
	if rate > 0 {
		left = time.Duration(float64(j.GetTotal()-n) / rate * float64(time.Second))
	}
	if c.json() {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.out().Line(render.Object{{Name: "event", Value: "progress"}, {Name: "done", Value: n}, {Name: "total", Value: j.GetTotal()}, {Name: "running", Value: k.GetRunning()},
			{Name: "failed", Value: k.GetFailed()}, {Name: "extra", Value: k.GetExtra()}, {Name: "per_second", Value: rate}, {Name: "left", Value: render.Seconds(left.Round(time.Second))}})
	}
	if !isTerminal(c.Stderr) && !nodeclient.JobOver(j.GetState()) {
		c.say("%d of %d inputs are done, %s, %.1f/s, %s left", n, j.GetTotal(), text, rate, render.Duration(left.Round(time.Second)))
	}
	return nil
}

// end says how it went.
func (c *collection) end(err error) error {
	if c.broken != nil {
		err = fmt.Errorf("%w; the job goes on, and the same command collects its results", c.broken)
	}
	if err != nil {
		return err
	}
	if err := syncDir(c.flags.output); err != nil {
		return fmt.Errorf("cannot write the output folder: %w", err)
	}
	j, k := c.job, c.job.GetCounts()
	if c.json() {
		if err := c.out().Line(render.Object{{Name: "event", Value: "job"}, {Name: "job", Value: render.Proto(j)}, {Name: "failures", Value: render.Protos(c.failures)}}); err != nil {
			return err
		}
	}
	extra := ""
	if k.GetExtra() > 0 {
		extra = fmt.Sprintf(", with %d extra runs", k.GetExtra())
	}
	switch j.GetState() {
	case "CANCELLED":
		return &codeError{exitFailed, fmt.Errorf("job %s was cancelled: %d of %d inputs are done", j.GetId(), k.GetCompleted(), j.GetTotal())}
	case "COMPLETED":
		c.say("%d inputs are done in %s%s: %s", j.GetTotal(), render.Duration(at(j.GetFinishedAt()).Sub(at(j.GetStartedAt()))), extra, c.flags.output)
		return nil
	}
	for _, sh := range c.failures {
		c.say("%s: %s", render.Clean(sh.GetName()), shardReason(sh))
	}
	return &codeError{exitFailed, fmt.Errorf("%d of %d inputs failed%s; the results of the others are in %s", len(c.failures), j.GetTotal(), extra, c.flags.output)}
}

// shardReason says why a shard failed, and where more is to be found.
func shardReason(sh *taskv1.Shard) string {
	why := sh.GetError().GetReason()
	if m := sh.GetError().GetMessage(); m != "" {
		why += ": " + render.Clean(m)
	}
	if sh.GetTaskId() != "" {
		why += fmt.Sprintf(" (task %s)", render.ShortID(sh.GetTaskId()))
	}
	return why
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
