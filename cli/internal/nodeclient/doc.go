// Package nodeclient finds the node that a command is for and talks to its node service, also across that service's
// restarts.
package nodeclient
