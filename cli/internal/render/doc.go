// Package render prints what commands found: JSON with the names of the protos, or tables for people.
package render
