package disk

import (
	"bytes"
	"crypto/sha256"

	mh "github.com/multiformats/go-multihash"
)

// sha256Key is how every multihash of SHA-256 begins.
const sha256Key = "\x12\x20"

// matches says whether the bytes have the multihash.
func matches(key string, data []byte) bool {
	if len(key) == len(sha256Key)+sha256.Size && key[:2] == sha256Key {
		sum := sha256.Sum256(data)
		return key[2:] == string(sum[:])
	}
	d, err := mh.Decode([]byte(key))
	if err != nil {
		return false
	}
	sum, err := mh.Sum(data, d.Code, d.Length)
	return err == nil && bytes.Equal(sum, []byte(key))
}
