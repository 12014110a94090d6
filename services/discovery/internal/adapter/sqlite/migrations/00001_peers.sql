-- +goose Up
-- Times are microseconds since 1970, the interval too.
CREATE TABLE peers (
    peer_id      TEXT PRIMARY KEY,
    state        TEXT NOT NULL,
    first_seen   INTEGER NOT NULL,
    last_seen    INTEGER NOT NULL,
    -- The announcement as its author signed it: everything else about the peer is in there.
    announcement BLOB NOT NULL
) WITHOUT ROWID;

-- One row: the first version that is not reserved.
CREATE TABLE versions (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    next INTEGER NOT NULL
);

-- One row: what this node's announcement says, as an announcement message.
CREATE TABLE self (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    announcement BLOB NOT NULL
);
