-- +goose Up

-- Who works on an entry that is open, and until when nobody else may take it, in microseconds since 1970 by the server's clock.
ALTER TABLE entries ADD COLUMN holder TEXT NOT NULL DEFAULT '';       -- empty: nobody
ALTER TABLE entries ADD COLUMN held_until BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN cancelled BOOLEAN NOT NULL DEFAULT false;
CREATE INDEX entries_held ON entries (holder) WHERE ended_at = 0;

-- The replicas that are there.
CREATE TABLE replicas (
    name        TEXT   NOT NULL PRIMARY KEY,
    slots       BIGINT NOT NULL,
    until       BIGINT NOT NULL
);

-- What one of them does for all.
CREATE TABLE leases (
    name        TEXT   NOT NULL PRIMARY KEY,
    holder      TEXT   NOT NULL,
    until       BIGINT NOT NULL
);
