//go:build !linux

package pgtest

import "testing"

// SmallDatabase needs Linux: the test is left out elsewhere.
func (s *Server) SmallDatabase(t testing.TB, _ string, _ int) {
	t.Helper()
	t.Skip("left out: a small file system is mounted on Linux only")
}
