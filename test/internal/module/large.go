package module

import "encoding/binary"

// Large is Small with so many bytes behind it that mean nothing, in a custom section.
func Large(bytes int) []byte {
	const name = "fill"
	body := append([]byte{byte(len(name))}, name...)
	body = append(body, make([]byte, bytes)...)
	return append(binary.AppendUvarint(append(Small(), 0), uint64(len(body))), body...)
}
