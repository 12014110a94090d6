package module

import (
	"encoding/binary"
	"time"
)

// Sleep is a WASI command that waits, and takes no CPU meanwhile: poll_oneoff with one subscription to the monotonic clock.
func Sleep(d time.Duration) []byte {
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	sub := make([]byte, 48) // userdata 8, tag 1 (0: clock), padding, clock id at 16, timeout at 24, precision, flags
	sub[16] = 1
	binary.LittleEndian.PutUint64(sub[24:], uint64(d))
	const i32, funcType, block = 0x7f, 0x60, 0x00
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = append(b, section(1, 2, funcType, 4, i32, i32, i32, i32, 1, i32, funcType, 0, 0)...)
	b = append(b, section(2, append(append(append([]byte{1}, name("wasi_snapshot_preview1")...), name("poll_oneoff")...), 0, 0)...)...)
	b = append(b, section(3, 1, 1)...)
	b = append(b, section(5, 1, 0, 1)...) // one page of memory
	b = append(b, section(7, append(append(append([]byte{2}, name("memory")...), 2, 0), append(name("_start"), 0, 1)...)...)...)
	// poll_oneoff(subscriptions at 0, events at 64, 1, count at 48)
	b = append(b, section(10, 1, 14, block, 0x41, 0, 0x41, 0xc0, 0, 0x41, 1, 0x41, 48, 0x10, 0, 0x1a, 0x0b)...)
	return append(b, section(11, append([]byte{1, 0, 0x41, 0, 0x0b, byte(len(sub))}, sub...)...)...)
}
