package app

import (
	"encoding/base32"

	"github.com/shallot-net/shallot/services/task/internal/domain"
)

var cidEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// SmallCID is the CID of content that is one raw block: version 1, codec raw, a SHA-256 of 32 bytes, in base 32. Knowing it
// ahead lets a small result be committed while it is put into the repository.
func SmallCID(sum domain.Hash) string {
	b := make([]byte, 0, 36)
	b = append(b, 0x01, 0x55, 0x12, 0x20)
	return "b" + cidEncoding.EncodeToString(append(b, sum[:]...))
}
