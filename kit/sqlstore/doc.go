// Package sqlstore is the plumbing of an embedded SQLite store: one writer that commits groups, a few readers,
// migrations, and errors that say which file is wrong and what to do.
package sqlstore
