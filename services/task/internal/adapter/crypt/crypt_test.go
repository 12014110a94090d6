package crypt

import (
	"bytes"
	"context"
	"io"
	"testing"
)

func newSealing(t testing.TB) *SealingKey {
	t.Helper()
	secret, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseSealingKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestPayloadIsOpenedWithItsSealedKeyAlone(t *testing.T) {
	t.Parallel()
	c, mine, other := NewCipher(), newSealing(t), newSealing(t)
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 300_000} {
		plain := bytes.Repeat([]byte{7}, size)
		var out bytes.Buffer
		w, key, err := c.EncryptPayload(&out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out.Bytes(), key) {
			t.Fatal("the payload key is in the ciphertext")
		}
		sealed, err := c.SealKey(key, mine.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.OpenKey(sealed); err == nil {
			t.Fatal("another provider opened the key")
		}
		got, err := mine.OpenKey(sealed)
		if err != nil || !bytes.Equal(got, key) {
			t.Fatalf("the key is %x, %v", got, err)
		}
		if b, err := c.OpenPayload(got, out.Bytes()); err != nil || !bytes.Equal(b, plain) {
			t.Fatalf("%d bytes: %v", size, err)
		}
		r, err := c.DecryptPayload(got, bytes.NewReader(out.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, plain) {
			t.Fatalf("%d bytes, streamed: %v", size, err)
		}
		for _, i := range []int{0, 30, out.Len() / 2, out.Len() - 1} {
			bad := bytes.Clone(out.Bytes())
			bad[i] ^= 1
			if _, err := c.OpenPayload(got, bad); err == nil && size <= 64<<10 {
				t.Fatalf("byte %d of %d was changed, and nobody minds", i, out.Len())
			}
		}
		if _, err := c.OpenPayload(got, out.Bytes()[:out.Len()-1]); err == nil {
			t.Fatal("a cut ciphertext was opened")
		}
		if _, err := c.OpenPayload(make([]byte, 16), out.Bytes()); err == nil {
			t.Fatal("another key opened it")
		}
	}
}

func TestSealedKeysOfOtherShapes(t *testing.T) {
	t.Parallel()
	k := newSealing(t)
	good, err := NewCipher().SealKey(make([]byte, 16), k.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if len(good) != sealSize {
		t.Fatalf("a sealed key has %d bytes", len(good))
	}
	for name, b := range map[string][]byte{"empty": nil, "cut": good[:len(good)-1], "long": append(bytes.Clone(good), 0), "version": append([]byte{9}, good[1:]...),
		"changed": append(append([]byte{}, good[:100]...), append([]byte{good[100] ^ 1}, good[101:]...)...)} {
		if _, err := k.OpenKey(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := NewCipher().SealKey(make([]byte, 16), "age1pq-nonsense"); err == nil {
		t.Error("sealed to nobody")
	}
	if _, err := NewCipher().SealKey(nil, k.Recipient()); err == nil {
		t.Error("sealed nothing")
	}
	if _, err := NewCipher().EncryptResult("nobody", io.Discard); err == nil {
		t.Error("encrypted to nobody")
	}
}

func TestTaskKeys(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	keys := NewKeys(2)
	done := make(chan error)
	go func() { done <- keys.Run(ctx) }()
	seen := map[string]bool{}
	for range 6 {
		k, err := keys.Take()
		if err != nil || seen[k.Recipient()] {
			t.Fatalf("a key twice, or %v", err)
		}
		seen[k.Recipient()] = true
		var out bytes.Buffer
		w, err := NewCipher().EncryptResult(k.Recipient(), &out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("result")); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		same, err := keys.Parse(k.Secret())
		if err != nil || same.Recipient() != k.Recipient() {
			t.Fatal(err)
		}
		if b, err := same.Open(out.Bytes()); err != nil || string(b) != "result" {
			t.Fatalf("%q, %v", b, err)
		}
		if other, _ := keys.Take(); other != nil {
			if _, err := other.Open(out.Bytes()); err == nil {
				t.Fatal("another key opened it")
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Parse("nonsense"); err == nil {
		t.Fatal("nonsense is a key")
	}
}

// FuzzOpen: ciphertexts come from strangers.
func FuzzOpen(f *testing.F) {
	k := newSealing(f)
	c := NewCipher()
	sealed, err := c.SealKey(make([]byte, 16), k.Recipient())
	if err != nil {
		f.Fatal(err)
	}
	var out bytes.Buffer
	w, key, err := c.EncryptPayload(&out)
	if err != nil {
		f.Fatal(err)
	}
	_, _ = w.Write([]byte("plain"))
	_ = w.Close()
	f.Add(sealed, out.Bytes())
	f.Fuzz(func(_ *testing.T, sealed, ciphertext []byte) {
		_, _ = k.OpenKey(sealed)
		_, _ = c.OpenPayload(key, ciphertext)
		if r, err := c.DecryptPayload(key, bytes.NewReader(ciphertext)); err == nil {
			_, _ = io.Copy(io.Discard, r)
		}
	})
}

func BenchmarkSealAndOpen(b *testing.B) {
	k, c := newSealing(b), NewCipher()
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.SealKey(make([]byte, 16), k.Recipient())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.OpenKey(s); err != nil {
			b.Fatal(err)
		}
	}
}
