package postgres

import (
	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/record"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func writeJob(b *pgstore.Batch, w *app.JobWrite) {
	j := w.Job
	switch {
	case w.Delete:
		b.Exec(`DELETE FROM job_inputs WHERE job_id = $1`, txt(j.ID))
		b.Exec(`DELETE FROM job_shards WHERE job_id = $1`, txt(j.ID))
		b.Exec(`DELETE FROM jobs WHERE id = $1`, txt(j.ID))
		return
	case w.Insert:
		b.Must(app.ErrExists, `INSERT INTO jobs (id, request_id, state, created_at, finished_at, revision, record, spec) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
			txt(j.ID), []byte(j.RequestID), int64(j.State), record.Micros(j.CreatedAt), record.Micros(j.FinishedAt), int64(j.Revision), record.AppendJob(j), some(w.Spec))
		return
	}
	b.Must(app.ErrConflict, `UPDATE jobs SET state = $1, finished_at = $2, revision = $3, record = $4 WHERE id = $5 AND revision = $3 - 1`,
		int64(j.State), record.Micros(j.FinishedAt), int64(j.Revision), record.AppendJob(j), txt(j.ID))
	if w.Drop {
		b.Exec(`UPDATE job_shards SET state = $1 WHERE job_id = $2 AND state < $3`, int64(domain.ShardCancelled), txt(j.ID), int64(domain.ShardCompleted))
		b.Exec(`DELETE FROM job_inputs WHERE job_id = $1`, txt(j.ID))
	}
}

func writeShard(b *pgstore.Batch, w *app.ShardWrite) {
	s := w.Shard
	if w.Insert {
		b.Must(app.ErrExists, `INSERT INTO job_shards (job_id, idx, name, size, sha256, state, task_id, tries, attempts, reason, message, took, ended, stdout_size, stdout_sha256)
			VALUES ($1, $2, $3, $4, $5, $6, '', 0, 0, '', '', 0, 0, 0, '') ON CONFLICT DO NOTHING`, txt(s.Job), int64(s.Index), []byte(s.Name), s.Size, s.SHA256[:], int64(s.State))
		if w.Content != nil {
			b.Exec(`INSERT INTO job_inputs (job_id, idx, content) VALUES ($1, $2, $3)`, txt(s.Job), int64(s.Index), w.Content)
		}
		return
	}
	var reason, message string
	if s.Error != nil {
		reason, message = s.Error.Reason, s.Error.Message
	}
	set := `UPDATE job_shards SET state = $3, task_id = $4, tries = $5, attempts = $6, exit_code = $7, reason = $8, message = $9, took = $10, stdout_size = $11, stdout_sha256 = $12`
	if s.State.Terminal() { // one of a job's at a time, whichever replica: whoever reads the largest number finds all below it
		b.Exec(`SELECT 1 FROM jobs WHERE id = $1 FOR UPDATE`, txt(s.Job))
		set += `, ended = 1 + (SELECT COALESCE(MAX(o.ended), 0) FROM job_shards o WHERE o.job_id = $1 AND o.ended > 0)`
	}
	b.Exec(set+` WHERE job_id = $1 AND idx = $2 AND state < $13`, txt(s.Job), int64(s.Index), int64(s.State), txt(s.TaskID), int64(s.Tries), int64(s.Attempts), s.ExitCode, []byte(reason), []byte(message),
		int64(s.Took), s.Stdout.Size, s.Stdout.SHA256[:], int64(domain.ShardCompleted))
	if s.State.Terminal() { // where it had ended before, its input has gone before
		b.Exec(`DELETE FROM job_inputs WHERE job_id = $1 AND idx = $2`, txt(s.Job), int64(s.Index))
	}
}
