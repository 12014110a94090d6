// Package pgstore is the plumbing of a store in PostgreSQL (13 or later): one writer per process that commits groups, a few readers, migrations under a lock,
// and errors that say what is wrong with the server and what to do. It promises what kit/sqlstore promises of a file, to several processes at once.
package pgstore
