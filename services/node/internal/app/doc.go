// Package app is what node does: it joins task, discovery, metric and broker. Each use case says which of them it needs
// by a port of its own. The messages of the contracts are its vocabulary, because handing them on is its work; what
// it decides about them is in package domain.
package app
