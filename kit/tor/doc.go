// Package tor finds the tor program, writes its configuration, runs it, and makes a private Tor network on this machine.
//
// It opens no connection: who speaks to tor's sockets is others' business. What it writes for a node's tor has Unix sockets only, so that a process without any
// network interface can use it.
//
// The private network (StartPrivate) is for tests and for trying things without the internet. It hides nothing: all of it is on one machine, and one
// hand holds every key.
package tor
