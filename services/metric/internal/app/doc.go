// Package app is what metric does: measure this node, tell its peers as often as the network bears, and keep the freshest
// metrics of theirs.
package app
