// Package app is what discovery does: join the network, announce this node, keep the peer table, and tell who asks.
package app
