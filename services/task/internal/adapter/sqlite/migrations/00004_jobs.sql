-- +goose Up

-- Jobs: one program over many inputs. Times are microseconds since 1970.
CREATE TABLE jobs (
    id          TEXT    NOT NULL PRIMARY KEY,
    request_id  TEXT    NOT NULL UNIQUE,
    state       INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,          -- 0 while it is not terminal
    revision    INTEGER NOT NULL,
    record      BLOB    NOT NULL,
    spec        BLOB    NOT NULL           -- what its tasks have in common
);
CREATE INDEX jobs_by_age ON jobs (created_at, id);
CREATE INDEX jobs_open ON jobs (id) WHERE finished_at = 0;

CREATE TABLE job_shards (
    job_id        TEXT    NOT NULL,
    idx           INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    size          INTEGER NOT NULL,        -- of the input
    sha256        BLOB    NOT NULL,        -- of the input
    state         INTEGER NOT NULL,
    task_id       TEXT    NOT NULL,
    tries         INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    exit_code     INTEGER,
    reason        TEXT    NOT NULL,
    message       TEXT    NOT NULL,
    took          INTEGER NOT NULL,        -- nanoseconds
    ended         INTEGER NOT NULL,        -- counts the shards of the job that have ended; 0 while it has not
    stdout_size   INTEGER NOT NULL,
    stdout_sha256 BLOB    NOT NULL,
    PRIMARY KEY (job_id, idx)
) WITHOUT ROWID;
CREATE UNIQUE INDEX job_shards_by_name ON job_shards (job_id, name);
CREATE INDEX job_shards_by_end ON job_shards (job_id, ended) WHERE ended > 0;

-- Small inputs, until their shards end. Large ones are files.
CREATE TABLE job_inputs (
    job_id      TEXT    NOT NULL,
    idx         INTEGER NOT NULL,
    content     BLOB    NOT NULL,
    PRIMARY KEY (job_id, idx)
);
