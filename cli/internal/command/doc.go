// Package command is what the shallot program can be told: its commands, their flags, what they print and how they exit.
package command
