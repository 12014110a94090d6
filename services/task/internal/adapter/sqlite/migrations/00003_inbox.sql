-- +goose Up

-- Events that have been applied, by the three days in which they were: old ones go by their key, without an index of
-- their age, which cost every event a page more.
CREATE TABLE applied (
    days        INTEGER NOT NULL,          -- since 1970, by three
    id          BLOB    NOT NULL,
    PRIMARY KEY (days, id)
) WITHOUT ROWID;
INSERT INTO applied (days, id) SELECT at / 72, id FROM inbox;
DROP TABLE inbox;
ALTER TABLE applied RENAME TO inbox;
