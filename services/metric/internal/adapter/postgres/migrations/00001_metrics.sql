-- +goose Up

-- One row: the first version that is not reserved.
CREATE TABLE versions (
    id   BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    next BIGINT NOT NULL
);

-- What each host measures, whichever replica on it does. Times are microseconds since 1970 by the server's clock.
CREATE TABLE hosts (
    host   TEXT   COLLATE "C" NOT NULL PRIMARY KEY,   -- a digest of the kernel's boot id
    writer TEXT   NOT NULL,                           -- the replica that measures, until another one takes over
    until  BIGINT NOT NULL,
    metric BYTEA  NOT NULL
);

-- One row: the queue as node has told it, and the version that this node has told last.
CREATE TABLE own (
    id      BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    queue   BYTEA  NOT NULL,
    version BIGINT NOT NULL
);

-- The freshest metrics of peers, for a replica that begins.
CREATE TABLE known (
    peer_id  TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    received BIGINT NOT NULL,              -- by the clock of the replica that leads
    metric   BYTEA  NOT NULL
);

-- The replicas that are there, and what one of them does for all.
CREATE TABLE replicas (
    name  TEXT   NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL
);
CREATE TABLE leases (
    name   TEXT   NOT NULL PRIMARY KEY,
    holder TEXT   NOT NULL,
    until  BIGINT NOT NULL
);
