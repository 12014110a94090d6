-- +goose Up

-- Results that are kept at more than one provider. 1: of another provider, kept here; 2: kept here, and to be kept by others.
ALTER TABLE entries ADD COLUMN replica INTEGER NOT NULL DEFAULT 0;
CREATE INDEX entries_replicated ON entries (task_id, attempt, consumer) WHERE replica > 0;

-- One attempt's result may be at several providers.
CREATE TABLE to_release (
    task_id     TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    persona     TEXT    NOT NULL,
    peer        TEXT    NOT NULL,
    addresses   TEXT    NOT NULL,
    PRIMARY KEY (task_id, attempt, peer)
);
INSERT INTO to_release (task_id, attempt, persona, peer, addresses) SELECT task_id, attempt, persona, peer, addresses FROM releases;
DROP TABLE releases;
ALTER TABLE to_release RENAME TO releases;
