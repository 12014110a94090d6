package sqlite

import (
	"github.com/shallot-net/shallot/kit/sqlstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/record"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func writeJob(tx *sqlstore.Tx, w *app.JobWrite, encoded []byte) error {
	j := w.Job
	if w.Delete {
		for _, q := range []string{`DELETE FROM job_inputs WHERE job_id = ?`, `DELETE FROM job_shards WHERE job_id = ?`, `DELETE FROM jobs WHERE id = ?`} {
			if _, err := tx.Exec(q, j.ID); err != nil {
				return err
			}
		}
		return nil
	}
	if w.Insert {
		err := one(tx.Exec(`INSERT INTO jobs (id, request_id, state, created_at, finished_at, revision, record, spec) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			j.ID, j.RequestID, int64(j.State), record.Micros(j.CreatedAt), record.Micros(j.FinishedAt), int64(j.Revision), encoded, w.Spec))
		return orElse(err, app.ErrExists)
	}
	err := one(tx.Exec(`UPDATE jobs SET state = ?, finished_at = ?, revision = ?, record = ? WHERE id = ? AND revision = ?`,
		int64(j.State), record.Micros(j.FinishedAt), int64(j.Revision), encoded, j.ID, int64(j.Revision)-1))
	if err != nil || !w.Drop {
		return orElse(err, app.ErrConflict)
	}
	if _, err := tx.Exec(`UPDATE job_shards SET state = ? WHERE job_id = ? AND state < ?`, int64(domain.ShardCancelled), j.ID, int64(domain.ShardCompleted)); err != nil {
		return err
	}
	_, err = tx.Exec(`DELETE FROM job_inputs WHERE job_id = ?`, j.ID)
	return err
}

func writeShard(tx *sqlstore.Tx, w *app.ShardWrite) error {
	s := w.Shard
	if w.Insert {
		return insertShard(tx, w)
	}
	var reason, message string
	if s.Error != nil {
		reason, message = s.Error.Reason, s.Error.Message
	}
	var exit any
	if s.ExitCode != nil {
		exit = int64(*s.ExitCode)
	}
	set := `UPDATE job_shards SET state = ?, task_id = ?, tries = ?, attempts = ?, exit_code = ?, reason = ?, message = ?, took = ?, stdout_size = ?, stdout_sha256 = ?`
	if s.State.Terminal() { // one transaction at a time: whoever reads the largest number finds all below it
		set += `, ended = 1 + (SELECT COALESCE(MAX(o.ended), 0) FROM job_shards o WHERE o.job_id = job_shards.job_id AND o.ended > 0)`
	}
	err := one(tx.Exec(set+` WHERE job_id = ? AND idx = ? AND state < ?`, int64(s.State), s.TaskID, int64(s.Tries), int64(s.Attempts), exit, reason, message, int64(s.Took),
		s.Stdout.Size, s.Stdout.SHA256[:], s.Job, int64(s.Index), int64(domain.ShardCompleted)))
	if err != nil || !s.State.Terminal() {
		return orElse(err, nil)
	}
	_, err = tx.Exec(`DELETE FROM job_inputs WHERE job_id = ? AND idx = ?`, s.Job, int64(s.Index))
	return err
}

func insertShard(tx *sqlstore.Tx, w *app.ShardWrite) error {
	s := w.Shard
	err := one(tx.Exec(`INSERT INTO job_shards (job_id, idx, name, size, sha256, state, task_id, tries, attempts, reason, message, took, ended, stdout_size, stdout_sha256)
		VALUES (?, ?, ?, ?, ?, ?, '', 0, 0, '', '', 0, 0, 0, x'') ON CONFLICT DO NOTHING`, s.Job, int64(s.Index), s.Name, s.Size, s.SHA256[:], int64(s.State)))
	if err != nil || w.Content == nil {
		return orElse(err, app.ErrExists)
	}
	_, err = tx.Exec(`INSERT INTO job_inputs (job_id, idx, content) VALUES (?, ?, ?)`, s.Job, int64(s.Index), w.Content)
	return err
}
