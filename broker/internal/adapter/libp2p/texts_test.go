package libp2p

import (
	"crypto/rand"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

func TestTexts(t *testing.T) {
	var known peerTexts
	for range maxTexts + 10 {
		id := identity(t)
		for range 2 {
			if got := known.of(id); got != id.String() {
				t.Fatalf("%s is written as %s", id, got)
			}
		}
		if n := known.known.Len(); n > maxTexts {
			t.Fatalf("%d are kept", n)
		}
	}
}

func BenchmarkTexts(b *testing.B) {
	id := identity(b)
	b.Run("made", func(b *testing.B) {
		for b.Loop() {
			_ = id.String()
		}
	})
	b.Run("kept", func(b *testing.B) {
		var known peerTexts
		for b.Loop() {
			known.of(id)
		}
	})
}

func identity(t testing.TB) peer.ID {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
