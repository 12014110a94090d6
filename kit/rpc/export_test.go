package rpc

import (
	"time"

	"google.golang.org/grpc/resolver"
)

// LookUpWith has clients look addresses up with b, as often as every says, until undo.
func LookUpWith(b resolver.Builder, every time.Duration) (undo func()) {
	old := pollingBuilder
	pollingBuilder = func() resolver.Builder { return &polling{Builder: b, every: every} }
	return func() { pollingBuilder = old }
}
