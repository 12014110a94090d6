// Package lifecycle runs a process: a set of functions that live and end together, and a main around them.
package lifecycle
