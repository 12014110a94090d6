// Package backup copies all that a node is into a directory, whether the node runs or not, and brings it back.
//
// What must fit together, and how it does:
//
//   - A store is copied as of one moment: SQLite makes that copy itself, and PostgreSQL gives one snapshot for all schemas.
//   - What a store's rows refer to is made before the row is committed, and removed after the row is gone: files of results and inputs, keys of personas, pinned content. So files are copied before
//     the stores and once more after them, what is new then, and content is copied last. A copy may have more than the rows need, and never less. What is too much its service removes
//     as it does after it was killed.
//   - Of content, the index is copied before the packs, because bytes get into a pack before the index says so. Packs are opened before the index is read, so that
//     one which is collected meanwhile can still be read.
//
// What this machine alone has use for, or what is made anew, is left out: see skipped.
package backup
