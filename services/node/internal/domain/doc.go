// Package domain is what node itself decides: who gets a task, who is out there (on a consumer), in which order and how
// often events are handed over, and who is told of a change. It imports the standard library only, keeps no
// goroutines and reads no clock: time and chance come in as arguments.
package domain
