package consumer

import (
	"fmt"
	"strings"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// hedgeFloor keeps shards that take no time from being run twice because of a pause of the machine.
const hedgeFloor = 250 * time.Millisecond

// hedgeShare bounds second tasks to one for so many shards: where all have become slow, more of them would make it worse.
const hedgeShare = 10

func alarmKey(job string, index uint32) string { return fmt.Sprintf("job:%s:%d", job, index) }

// watchOver sets the alarm of a shard that a provider has. The caller holds the job's lock.
func (j *jobs) watchOver(b *job, f *flight, a *domain.Attempt) {
	f.holder = a.Peer
	if !b.job.Hedge || f.hedged || f.shard.State != domain.ShardRunning {
		return
	}
	if !f.since.Equal(a.SubmittedAt) {
		f.since = a.SubmittedAt
		j.setAlarm(b, f)
	}
}

func (j *jobs) setAlarm(b *job, f *flight) {
	if long, ok := b.times.Straggling(b.job.Total); ok && !f.since.IsZero() {
		j.alarms.Set(alarmKey(b.id, f.shard.Index), f.since.Add(max(long, hedgeFloor)))
	}
}

// lookAgain sets the alarms of all shards in flight when enough have ended to know what is long. The caller holds the job's lock.
func (j *jobs) lookAgain(b *job) {
	if b.known {
		return
	}
	if _, b.known = b.times.Straggling(b.job.Total); !b.known {
		return
	}
	for _, f := range b.flight {
		if !f.hedged {
			j.setAlarm(b, f)
		}
	}
}

// straggles is called when a shard has taken longer than its siblings: it gets a second task, when there is room for one.
func (j *jobs) straggles(key string) {
	id, at, _ := strings.Cut(strings.TrimPrefix(key, "job:"), ":")
	var index uint32
	if _, err := fmt.Sscan(at, &index); err != nil {
		return
	}
	b := j.get(id)
	if b == nil {
		return
	}
	b.mu.Lock()
	f := b.flight[index]
	long, ok := b.times.Straggling(b.job.Total)
	if f == nil || f.hedged || !ok || b.hedges > int(b.job.Total)/hedgeShare || len(f.tasks) != 1 || f.shard.Tries >= domain.MaxTries {
		b.mu.Unlock()
		return
	}
	if time.Since(f.since) < long { // its siblings have become slower
		j.setAlarm(b, f)
		b.mu.Unlock()
		return
	}
	f.hedged, f.hedging = true, true
	b.hedges++
	b.again = append(b.again, index)
	b.mu.Unlock()
	j.fill.Add(id)
}
