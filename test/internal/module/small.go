// Package module has WASI commands of some hundred bytes, for tests and measurements that are not about programs.
package module

// Small is a WASI command of some hundred bytes that prints "done\n".
func Small() []byte {
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	const i32, funcType, block = 0x7f, 0x60, 0x00
	return join([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 2, funcType, 4, i32, i32, i32, i32, 1, i32, funcType, 0, 0),
		section(2, join([]byte{1}, name("wasi_snapshot_preview1"), name("fd_write"), []byte{0, 0})...),
		section(3, 1, 1),
		section(5, 1, 0, 1), // one page of memory
		section(7, join([]byte{2}, name("memory"), []byte{2, 0}, name("_start"), []byte{0, 1})...),
		// fd_write(1, iovecs at 0, one of them, written at 16)
		section(10, 1, 13, block, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 16, 0x10, 0, 0x1a, 0x0b),
		section(11, join([]byte{1, 0, 0x41, 0, 0x0b, 13}, []byte{8, 0, 0, 0, 5, 0, 0, 0}, []byte("done\n"))...),
	)
}
