package crypt

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/shallot-net/shallot/kit/fault"
)

func TestSharedKeysOpenTheirResultAlone(t *testing.T) {
	t.Parallel()
	keys := NewKeys(0)
	mine, other := keys.Shared(), keys.Shared()
	if mine.Recipient() != "" || len(mine.ResultKey()) != 16 || bytes.Equal(mine.ResultKey(), other.ResultKey()) {
		t.Fatalf("%q, %x, %x", mine.Recipient(), mine.ResultKey(), other.ResultKey())
	}
	seal := func() []byte {
		var out bytes.Buffer
		w, err := NewCipher().EncryptResult("", mine.ResultKey(), &out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("result")); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	one, two := seal(), seal()
	if bytes.Equal(one, two) || len(one) != len(two) {
		t.Error("two results under one key can be told to be the same")
	}
	again, err := keys.Parse(mine.Secret())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{one, two} {
		if got, err := again.Open(b); err != nil || string(got) != "result" {
			t.Errorf("%q, %v", got, err)
		}
		r, err := again.Decrypt(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "result" {
			t.Errorf("streamed: %q, %v", got, err)
		}
		if _, err := other.Open(b); !errors.As(err, new(*age.NoIdentityMatchError)) {
			t.Errorf("another key: %v", err)
		}
	}
	for i := range one {
		bad := bytes.Clone(one)
		bad[i] ^= 1
		if got, err := mine.Open(bad); err == nil {
			t.Fatalf("byte %d was changed, and nobody minds: %q", i, got)
		}
	}
	for _, key := range [][]byte{nil, make([]byte, 15), make([]byte, 17)} {
		if _, err := NewCipher().EncryptResult("", key, io.Discard); fault.From(err).Reason != "RECIPIENT_INVALID" {
			t.Errorf("a key of %d bytes: %v", len(key), err)
		}
	}
	for _, secret := range []string{sharedPrefix, sharedPrefix + "AAAA", sharedPrefix + "*", sharedPrefix + strings.Repeat("A", 30)} {
		if _, err := keys.Parse(secret); err == nil {
			t.Errorf("%q is a secret", secret)
		}
	}
}
