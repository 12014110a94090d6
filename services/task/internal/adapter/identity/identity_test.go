package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/signature"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func TestVerify(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := domain.Event{Type: domain.TypeSubmission, Payload: []byte("payload"), Attachment: []byte("not covered"), Author: PeerID(pub)}
	good.Signature = ed25519.Sign(priv, SignedBytes(&good))
	if !strings.HasPrefix(good.Author, "12D3KooW") || !domain.ValidPeer(good.Author) {
		t.Fatalf("the peer id is %s", good.Author)
	}
	other, _, _ := ed25519.GenerateKey(rand.Reader)
	all := make([][]byte, signature.MaxEvents)
	all[7] = SignedBytes(&good)
	shared, err := signature.SignAll(all, func(b []byte) ([]byte, error) { return ed25519.Sign(priv, b), nil })
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*domain.Event)
		want   bool
	}{
		"as it is":        {func(*domain.Event) {}, true},
		"attachment":      {func(e *domain.Event) { e.Attachment = nil }, true},
		"payload":         {func(e *domain.Event) { e.Payload = []byte("other") }, false},
		"type":            {func(e *domain.Event) { e.Type++ }, false},
		"author":          {func(e *domain.Event) { e.Author = PeerID(other) }, false},
		"no author":       {func(e *domain.Event) { e.Author = "" }, false},
		"a word":          {func(e *domain.Event) { e.Author = "0OIl" }, false},
		"long author":     {func(e *domain.Event) { e.Author = strings.Repeat("1", 100_000) }, false},
		"no signature":    {func(e *domain.Event) { e.Signature = nil }, false},
		"with others":     {func(e *domain.Event) { e.Signature = shared[7] }, true},
		"another's path":  {func(e *domain.Event) { e.Signature = shared[8] }, false},
		"no path":         {func(e *domain.Event) { e.Signature = shared[7][:ed25519.SignatureSize] }, false},
		"short signature": {func(e *domain.Event) { e.Signature = e.Signature[:63] }, false},
	} {
		e := good
		c.change(&e)
		if got := (Verifier{}).Verify(&e); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// FuzzVerify: authors come from strangers.
func FuzzVerify(f *testing.F) {
	f.Add("12D3KooWabc", []byte{1}, []byte{2})
	f.Fuzz(func(t *testing.T, author string, payload, signature []byte) {
		if (Verifier{}).Verify(&domain.Event{Author: author, Payload: payload, Signature: signature}) {
			t.Fatal("a signature out of nothing")
		}
	})
}
