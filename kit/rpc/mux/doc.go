// Package mux carries calls as frames on one long-lived bidirectional stream, which costs a third of a unary
// call. A frame's sequence number joins an answer to its request; number 0 marks a push, which answers nothing.
package mux
