-- +goose Up

-- Times are microseconds since 1970. What lists filter by has columns; the rest is in record. What others may have chosen freely is BYTEA: TEXT takes no zero bytes.

-- A consumer's tasks.
CREATE TABLE tasks (
    id          TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    request_id  BYTEA  NOT NULL UNIQUE,
    type        TEXT   NOT NULL,
    state       BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,           -- 0 while it is not terminal
    search      TEXT   NOT NULL,           -- lower case
    revision    BIGINT NOT NULL,
    record      BYTEA  NOT NULL,
    secret      BYTEA,                     -- key material, until the end
    payload     BYTEA,                     -- inline ciphertext, until the end
    body        BYTEA                      -- a small result's plaintext
);
CREATE INDEX tasks_by_age ON tasks (created_at, id);
CREATE INDEX tasks_open ON tasks (id) WHERE finished_at = 0;
CREATE INDEX tasks_by_end ON tasks (finished_at) WHERE finished_at > 0;

-- A provider's journal: one row per attempt.
CREATE TABLE entries (
    task_id     TEXT   COLLATE "C" NOT NULL,
    attempt     BIGINT NOT NULL,
    consumer    TEXT   COLLATE "C" NOT NULL,
    type        TEXT   NOT NULL,
    state       BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    ended_at    BIGINT NOT NULL,
    forget_at   BIGINT NOT NULL,           -- 0 while it is not terminal
    search      TEXT   NOT NULL,
    revision    BIGINT NOT NULL,
    replica     BIGINT NOT NULL,           -- 1: of another provider, kept here; 2: kept here, and to be kept by others
    record      BYTEA  NOT NULL,
    sealed_key  BYTEA,                     -- until the end
    ciphertext  BYTEA,                     -- an inline payload, until the end
    result      BYTEA,                     -- a small result's ciphertext, until it is collected
    PRIMARY KEY (task_id, attempt, consumer)
);
CREATE INDEX entries_by_age ON entries (created_at, task_id);
CREATE INDEX entries_open ON entries (created_at) WHERE ended_at = 0;
CREATE INDEX entries_to_forget ON entries (forget_at) WHERE forget_at > 0;
CREATE INDEX entries_kept ON entries (task_id, attempt, consumer) WHERE result IS NOT NULL;
CREATE INDEX entries_replicated ON entries (task_id, attempt, consumer) WHERE replica > 0;

-- Events to be sent, until they are acknowledged.
CREATE TABLE outbox (
    id          BIGINT NOT NULL PRIMARY KEY,
    task_id     TEXT   NOT NULL,
    attempt     BIGINT NOT NULL,
    persona     TEXT   NOT NULL,
    peer        TEXT   NOT NULL,
    addresses   BYTEA  NOT NULL,           -- one a line
    event_id    TEXT   NOT NULL,
    type        BIGINT NOT NULL,
    payload     BYTEA  NOT NULL,
    sign        BOOLEAN NOT NULL,
    timeout     BIGINT NOT NULL,           -- nanoseconds
    attach      BIGINT NOT NULL,
    sealed      BYTEA
);
CREATE INDEX outbox_by_task ON outbox (task_id);

-- Events that have been applied, by the three days in which they were: old ones go by their key.
CREATE TABLE inbox (
    days        BIGINT NOT NULL,           -- since 1970, by three
    id          BYTEA  NOT NULL,
    PRIMARY KEY (days, id)
);

-- Results that their providers may let go, and have not been told of. One attempt's may be at several.
CREATE TABLE releases (
    task_id     TEXT   NOT NULL,
    attempt     BIGINT NOT NULL,
    persona     TEXT   NOT NULL,
    peer        TEXT   NOT NULL,
    addresses   BYTEA  NOT NULL,
    PRIMARY KEY (task_id, attempt, peer)
);

CREATE TABLE settings (
    name        TEXT   NOT NULL PRIMARY KEY,
    value       BYTEA  NOT NULL
);

-- Parts of payloads that are content of their own, so that tasks can share them. The key opens what is in the node's own repository.
CREATE TABLE shares (
    persona     TEXT   NOT NULL,
    peer        TEXT   NOT NULL,           -- made for one provider, in anonymous mode; empty: for all
    sha256      BYTEA  NOT NULL,           -- of the part
    cid         TEXT   NOT NULL,           -- of its ciphertext
    key         BYTEA  NOT NULL,
    size        BIGINT NOT NULL,           -- of the ciphertext, in bytes
    until       BIGINT NOT NULL,           -- when its pin ends
    PRIMARY KEY (persona, peer, sha256)
);
CREATE INDEX shares_by_end ON shares (until);

-- Jobs: one program over many inputs.
CREATE TABLE jobs (
    id          TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    request_id  BYTEA  NOT NULL UNIQUE,
    state       BIGINT NOT NULL,
    created_at  BIGINT NOT NULL,
    finished_at BIGINT NOT NULL,           -- 0 while it is not terminal
    revision    BIGINT NOT NULL,
    record      BYTEA  NOT NULL,
    spec        BYTEA  NOT NULL            -- what its tasks have in common
);
CREATE INDEX jobs_by_age ON jobs (created_at, id);
CREATE INDEX jobs_open ON jobs (id) WHERE finished_at = 0;

CREATE TABLE job_shards (
    job_id        TEXT   COLLATE "C" NOT NULL,
    idx           BIGINT NOT NULL,
    name          BYTEA  NOT NULL,
    size          BIGINT NOT NULL,         -- of the input
    sha256        BYTEA  NOT NULL,         -- of the input
    state         BIGINT NOT NULL,
    task_id       TEXT   NOT NULL,
    tries         BIGINT NOT NULL,
    attempts      BIGINT NOT NULL,
    exit_code     INTEGER,
    reason        BYTEA  NOT NULL,
    message       BYTEA  NOT NULL,
    took          BIGINT NOT NULL,         -- nanoseconds
    ended         BIGINT NOT NULL,         -- counts the shards of the job that have ended; 0 while it has not
    stdout_size   BIGINT NOT NULL,
    stdout_sha256 BYTEA  NOT NULL,
    PRIMARY KEY (job_id, idx),
    UNIQUE (job_id, name)
);
CREATE INDEX job_shards_by_end ON job_shards (job_id, ended) WHERE ended > 0;

-- Small inputs, until their shards end. Large ones are files.
CREATE TABLE job_inputs (
    job_id      TEXT   COLLATE "C" NOT NULL,
    idx         BIGINT NOT NULL,
    content     BYTEA  NOT NULL,
    PRIMARY KEY (job_id, idx)
);
