// Package repository is the broker's content store: IPFS blocks on disk, UnixFS over them, bitswap with peers, and
// shallot.broker.v1.RepositoryService in front.
//
// Pins are our own records and not boxo's: those have neither an owner nor an end, and a result is kept for a task and for a time.
package repository
