// Package libp2p makes the hosts of personas. profile.go is the table of every switch that decides what a host does on the network, limits.go of
// every number that bounds what peers may cost it.
package libp2p
