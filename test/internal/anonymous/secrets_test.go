package anonymous

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// A key is found in whatever form a program would write it.
func TestKeysAreFound(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p2p, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	marshalled, err := crypto.MarshalPrivateKey(p2p)
	if err != nil {
		t.Fatal(err)
	}
	var secrets []secret
	for _, f := range forms(key) {
		secrets = append(secrets, secret{Key, f})
	}
	find := newFinder(secrets)
	for what, text := range map[string]string{
		"the bytes": "x" + string(key) + "y", "a seed in digits": hex.EncodeToString(key.Seed()), "a key in digits": strings.ToUpper(hex.EncodeToString(key)),
		"PEM": strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "\n", ""), "libp2p's form": base64.StdEncoding.EncodeToString(marshalled),
		"the same for URLs": base64.URLEncoding.EncodeToString(marshalled), "a seed": base64.StdEncoding.EncodeToString(key.Seed()), "a seed behind two bytes": base64.RawStdEncoding.EncodeToString(append([]byte("ab"), key.Seed()...)),
	} {
		if find.in([]byte(text))[Key] == "" {
			t.Errorf("%s: not found in %q", what, text)
		}
	}
	_, other, _ := ed25519.GenerateKey(nil)
	if got := find.in(other); len(got) > 0 {
		t.Errorf("another key is taken for it: %q", got)
	}
}
