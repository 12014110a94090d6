package provider

import (
	"crypto/sha256"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// TestCut: what follows the parts is the padding that the header tells of, and nothing else.
func TestCut(t *testing.T) {
	body := []byte("body")
	part := domain.Part{Name: "stdin", Size: 4, SHA256: sha256.Sum256(body)}
	for _, c := range []struct {
		follows string
		said    int64
		ok      bool
	}{{"", 0, true}, {"\x00\x00", 2, true}, {"\x00\x00", 1, false}, {"\x00\x00", 3, false}, {"\x00\x00", 0, false}, {"\x00\x01", 2, false}, {"", 2, false}} {
		parts, err := cut(&app.PayloadHeader{Parts: []domain.Part{part}, Padding: c.said}, append([]byte("body"), c.follows...))
		if (err == nil) != c.ok || c.ok && string(parts[0].Inline) != "body" {
			t.Errorf("%q behind a body, and %d bytes of padding said: %v", c.follows, c.said, err)
		}
	}
}
