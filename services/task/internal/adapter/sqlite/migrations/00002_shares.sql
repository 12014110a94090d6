-- +goose Up

-- Parts of payloads that are content of their own, so that tasks can share them. The key opens what is in the node's own repository.
CREATE TABLE shares (
    persona     TEXT    NOT NULL,
    sha256      BLOB    NOT NULL,          -- of the part
    cid         TEXT    NOT NULL,          -- of its ciphertext
    key         BLOB    NOT NULL,
    size        INTEGER NOT NULL,          -- of the ciphertext, in bytes
    until       INTEGER NOT NULL,          -- when its pin ends, in microseconds since 1970
    PRIMARY KEY (persona, sha256)
) WITHOUT ROWID;
