-- +goose Up

-- A consumer's tasks. Times are microseconds since 1970. What lists filter by has columns; the rest is in record.
CREATE TABLE tasks (
    id          TEXT    NOT NULL PRIMARY KEY,
    request_id  TEXT    NOT NULL UNIQUE,
    type        TEXT    NOT NULL,
    state       INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,          -- 0 while it is not terminal
    search      TEXT    NOT NULL,          -- lower case
    revision    INTEGER NOT NULL,
    record      BLOB    NOT NULL,
    secret      BLOB,                      -- key material, until the end
    payload     BLOB,                      -- inline ciphertext, until the end
    body        BLOB                       -- a small result's plaintext
);
CREATE INDEX tasks_by_age ON tasks (created_at, id);
CREATE INDEX tasks_open ON tasks (id) WHERE finished_at = 0;
CREATE INDEX tasks_by_end ON tasks (finished_at) WHERE finished_at > 0;

-- A provider's journal: one row per attempt.
CREATE TABLE entries (
    task_id     TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    consumer    TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    state       INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    ended_at    INTEGER NOT NULL,
    forget_at   INTEGER NOT NULL,          -- 0 while it is not terminal
    search      TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    record      BLOB    NOT NULL,
    sealed_key  BLOB,                      -- until the end
    ciphertext  BLOB,                      -- an inline payload, until the end
    result      BLOB,                      -- a small result's ciphertext, until it is collected
    PRIMARY KEY (task_id, attempt, consumer)
);
CREATE INDEX entries_by_age ON entries (created_at, task_id);
CREATE INDEX entries_open ON entries (created_at) WHERE ended_at = 0;
CREATE INDEX entries_to_forget ON entries (forget_at) WHERE forget_at > 0;

-- Events to be sent, until they are acknowledged.
CREATE TABLE outbox (
    id          INTEGER NOT NULL PRIMARY KEY,
    task_id     TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    persona     TEXT    NOT NULL,
    peer        TEXT    NOT NULL,
    addresses   TEXT    NOT NULL,          -- one a line
    event_id    TEXT    NOT NULL,
    type        INTEGER NOT NULL,
    payload     BLOB    NOT NULL,
    sign        INTEGER NOT NULL,
    timeout     INTEGER NOT NULL,          -- nanoseconds
    attach      INTEGER NOT NULL,
    sealed      BLOB
);

-- Events that have been applied.
CREATE TABLE inbox (
    id          BLOB    NOT NULL PRIMARY KEY,
    at          INTEGER NOT NULL           -- hours since 1970
) WITHOUT ROWID;
CREATE INDEX inbox_by_age ON inbox (at);

-- Results that their providers may let go, and have not been told of.
CREATE TABLE releases (
    task_id     TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    persona     TEXT    NOT NULL,
    peer        TEXT    NOT NULL,
    addresses   TEXT    NOT NULL,
    PRIMARY KEY (task_id, attempt)
);

CREATE TABLE settings (
    name        TEXT    NOT NULL PRIMARY KEY,
    value       BLOB    NOT NULL
);
