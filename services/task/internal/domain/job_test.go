package domain

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestJobMovesForward: whatever is asked of a job in whatever order, a terminal one stays as it is, and only pausing goes back.
func TestJobMovesForward(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.Uint32Range(1, 5).Draw(t, "total")
		j := NewJob(Job{ID: "j", Total: total}, t0)
		c := ShardCounts{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			was := *j
			var err error
			switch rapid.SampledFrom(JobMoves).Draw(t, "move") {
			case JobStart:
				if c.Added() < total {
					c.Waiting++
				}
				err = j.Start(t0, c)
			case JobPause:
				err = j.Pause()
			case JobResume:
				err = j.Resume()
			case JobComplete:
				if c.Waiting > 0 && j.State >= JobRunning {
					c.Waiting--
					c.Completed++
				}
				err = j.Finish(t0, c)
			case JobFail:
				if c.Waiting > 0 && j.State >= JobRunning {
					c.Waiting--
					c.Failed++
				}
				err = j.Finish(t0, c)
			case JobCancel:
				err = j.Cancel(t0, c, "")
			}
			if err != nil {
				if *j != was {
					t.Fatalf("a move that failed changed the job: %+v, was %+v", *j, was)
				}
				continue
			}
			if was.State.Terminal() || j.State < was.State && (was.State != JobPaused || j.State != JobRunning) {
				t.Fatalf("%s to %s", was.State, j.State)
			}
			if j.State.Terminal() && (j.FinishedAt.IsZero() || j.Final.Waiting+j.Final.Running != 0) {
				t.Fatalf("ended with %+v", j.Final)
			}
			if j.State == JobCompleted && j.Final.Completed != total {
				t.Fatalf("COMPLETED with %d of %d", j.Final.Completed, total)
			}
		}
	})
}

func TestJobMoveThatIsNoneSaysWhy(t *testing.T) {
	t.Parallel()
	j := NewJob(Job{Total: 1}, t0)
	var me *JobMoveError
	if err := j.Pause(); !errors.As(err, &me) || me.Error() != "cannot pause a job that is OPEN" {
		t.Fatalf("%v", err)
	}
	if err := j.Start(t0, ShardCounts{}); err == nil || j.State != JobOpen {
		t.Fatalf("a job without its shards has started: %v", err)
	}
}

func ended(t *testing.T, end func(x *Task) error) *Task {
	t.Helper()
	x := NewTask(Task{ID: "t", Policy: Policy{MaxAttempts: 1}, Clocks: DefaultClocks, Shard: &ShardRef{Job: "j", Index: 3, Try: 1}}, t0)
	if err := x.Place(t0, Attempt{Peer: "p"}, ""); err != nil {
		t.Fatal(err)
	}
	if err := end(x); err != nil {
		t.Fatal(err)
	}
	return x
}

func receipt(r Receipt) func(x *Task) error {
	return func(x *Task) error {
		r.Attempt, r.Peer = 1, "p"
		if err := x.Receive(t0, r); err != nil {
			return err
		}
		return x.Settle(t0.Add(time.Second), &Result{Parts: []Part{{Name: "stdout", Size: 5}}})
	}
}

func TestWhatATaskSaysOfItsShard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end   func(x *Task) error
		want  Judgement
		state ShardState
		why   string
	}{
		"success":   {receipt(Receipt{}), Decided, ShardCompleted, ""},
		"exit code": {receipt(Receipt{ExitCode: 3}), Decided, ShardFailed, "EXIT_CODE"},
		"trap":      {receipt(Receipt{Cause: CauseProgram, Reason: "TRAP"}), Decided, ShardFailed, "TRAP"},
		"limit":     {receipt(Receipt{Cause: CauseLimit, Reason: "TIME_LIMIT"}), Decided, ShardFailed, "TIME_LIMIT"},
		"bad payload": {func(x *Task) error {
			return x.EndAttempt(t0, 1, "p", End{What: "REFUSED", Reason: "PAYLOAD_INVALID", Final: true})
		}, Decided, ShardFailed, "PAYLOAD_INVALID"},
		"provider": {func(x *Task) error {
			return x.EndAttempt(t0, 1, "p", End{What: "FAILED_AT_PROVIDER", Reason: "CRASHED"})
		}, Again, ShardFailed, "ATTEMPTS_EXHAUSTED"},
		"clock":          {func(x *Task) error { return x.Expire(t0, ClockPlacement) }, Again, ShardFailed, "PLACEMENT_CLOCK"},
		"cancelled":      {func(x *Task) error { return x.Cancel(t0, "", "") }, Withdrawn, ShardFailed, "CANCELLED"},
		"not over":       {func(x *Task) error { return x.Accept(t0, 1, "p", "") }, Undecided, 0, ""},
		"lost and found": {receipt(Receipt{ExitCode: 0}), Decided, ShardCompleted, ""},
	} {
		x := ended(t, c.end)
		if got := Judge(x); got != c.want {
			t.Errorf("%s: judged %d, want %d", name, got, c.want)
		}
		if c.state == 0 {
			continue
		}
		s := Shard{State: ShardRunning}
		s.End(x, 2)
		why := ""
		if s.Error != nil {
			why = s.Error.Reason
		}
		if s.State != c.state || why != c.why || s.Tries != 2 || s.TaskID != "t" {
			t.Errorf("%s: the shard is %+v, %s", name, s, why)
		}
	}
}

func TestAttemptsThatNobodyTookDidNotRun(t *testing.T) {
	t.Parallel()
	x := &Task{Attempts: []Attempt{{Ended: "REFUSED"}, {Ended: "LEASE_LOST"}, {Ended: "UNREACHABLE"}, {Ended: "RESULT"}}}
	if n := x.MayHaveRun(); n != 2 {
		t.Fatalf("%d", n)
	}
	s := Shard{Attempts: 2}
	if s.Extra() != 1 || (&Shard{}).Extra() != 0 {
		t.Fatal("extra")
	}
}

// TestStraggling: the bound is above 95 of 100, and there is none before more than half are done.
func TestStraggling(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var times Times
		total := rapid.Uint32Range(1, 200).Draw(t, "total")
		for i := range total {
			times.Add(time.Duration(rapid.Int64Range(0, 1000).Draw(t, "took")))
			at, ok := times.Straggling(total)
			if ok != (2*(i+1) > total) {
				t.Fatalf("%d of %d: %v", i+1, total, ok)
			}
			below := 0
			for _, d := range times.sorted {
				if d <= at {
					below++
				}
			}
			if ok && below*100 < 95*int(i+1) {
				t.Fatalf("%d of %d are within the bound", below, i+1)
			}
		}
	})
}
