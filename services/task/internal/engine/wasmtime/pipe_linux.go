//go:build cgo

package wasmtime

import "golang.org/x/sys/unix"

// pipeSize is what every user may have; the memory is taken as it is written.
const pipeSize = 1 << 20

// widen gives a pipe more room, so that a program which writes much at once is not held up until it is followed. It is
// as good without.
func widen(fd int) { _, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize) }
