// Package supervisor runs the processes of a node, and the nodes of a small network, on this machine: it starts
// them, starts them again when they die, keeps their logs, and leaves nothing behind when it stops.
package supervisor
