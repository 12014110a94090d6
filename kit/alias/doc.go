// Package alias gives peers the short names under which people see them in anonymous mode. A peer id is as good as an address there:
// whoever has it can look for the peer. An alias is a keyed hash of it, and the key is local to a home, so that neither a screen nor a log
// that somebody else sees tells of whom it speaks, and two nodes' aliases of one peer have nothing in common.
package alias
