-- +goose Up

-- A shared part is made for one provider in anonymous mode; empty: for all.
CREATE TABLE peer_shares (
    persona     TEXT    NOT NULL,
    peer        TEXT    NOT NULL,
    sha256      BLOB    NOT NULL,          -- of the part
    cid         TEXT    NOT NULL,          -- of its ciphertext
    key         BLOB    NOT NULL,
    size        INTEGER NOT NULL,          -- of the ciphertext, in bytes
    until       INTEGER NOT NULL,          -- when its pin ends, in microseconds since 1970
    PRIMARY KEY (persona, peer, sha256)
) WITHOUT ROWID;
INSERT INTO peer_shares (persona, peer, sha256, cid, key, size, until) SELECT persona, '', sha256, cid, key, size, until FROM shares;
DROP TABLE shares;
ALTER TABLE peer_shares RENAME TO shares;
