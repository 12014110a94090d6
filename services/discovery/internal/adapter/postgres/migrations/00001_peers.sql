-- +goose Up

-- Times are microseconds since 1970, by the clock of the replica that leads.
CREATE TABLE peers (
    peer_id      TEXT    COLLATE "C" NOT NULL PRIMARY KEY,
    state        TEXT    NOT NULL,
    first_seen   BIGINT  NOT NULL,
    last_seen    BIGINT  NOT NULL,
    vouched      BOOLEAN NOT NULL,
    announcement BYTEA   NOT NULL          -- as its author signed it: everything else about the peer is in there
);

-- One row: the first version that is not reserved.
CREATE TABLE versions (
    id   BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    next BIGINT NOT NULL
);

-- One row: what this node's announcement says, as an announcement message.
CREATE TABLE self (
    id           BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    announcement BYTEA  NOT NULL
);

-- One row: what a stranger's submission costs.
CREATE TABLE puzzle (
    id     BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    nonce  BYTEA  NOT NULL,
    effort BIGINT NOT NULL
);

-- The replicas that are there, and what one of them does for all, by the server's clock.
CREATE TABLE replicas (
    name  TEXT   NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL
);
CREATE TABLE leases (
    name   TEXT   NOT NULL PRIMARY KEY,
    holder TEXT   NOT NULL,
    until  BIGINT NOT NULL
);
