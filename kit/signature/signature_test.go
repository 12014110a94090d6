package signature_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/shallot-net/shallot/kit/signature"
)

func pair(t testing.TB) (ed25519.PublicKey, func([]byte) ([]byte, error)) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return pub, func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil }
}

func messages(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = signature.Message(30, binary.BigEndian.AppendUint32(nil, uint32(i)))
	}
	return out
}

func TestEachOfManyIsVerifiedByItself(t *testing.T) {
	pub, sign := pair(t)
	other, _ := pair(t)
	for n := 1; n <= signature.MaxEvents; n++ {
		ms := messages(n)
		signed := 0
		sigs, err := signature.SignAll(ms, func(m []byte) ([]byte, error) { signed++; return sign(m) })
		if err != nil || len(sigs) != n || signed != 1 {
			t.Fatalf("%d messages: %d signatures by %d signings, %v", n, len(sigs), signed, err)
		}
		var v signature.Verifier
		for i, s := range sigs {
			if len(s) > signature.MaxSize {
				t.Errorf("a signature has %d bytes", len(s))
			}
			if !signature.Verify(pub, ms[i], s) || !v.Verify(pub, ms[i], s) || !v.Verify(pub, ms[i], s) {
				t.Fatalf("message %d of %d is not verified", i, n)
			}
			if v.Verify(other, ms[i], s) || v.Verify(pub[:31], ms[i], s) {
				t.Fatalf("message %d of %d is verified with another key", i, n)
			}
			if n > 1 && v.Verify(pub, ms[(i+1)%n], s) {
				t.Fatalf("the path of message %d of %d fits its neighbour", i, n)
			}
			if v.Verify(pub, signature.Message(31, []byte("x")), s) {
				t.Fatalf("the path of message %d of %d fits a stranger", i, n)
			}
		}
	}
}

// The trees are those of RFC 9162, as another's code builds them.
func TestTheTreeIsTheStandards(t *testing.T) {
	for n := 2; n <= signature.MaxEvents; n++ {
		ms := messages(n)
		var hashes []tlog.Hash
		read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			out := make([]tlog.Hash, len(indexes))
			for i, at := range indexes {
				out[i] = hashes[at]
			}
			return out, nil
		})
		for i, m := range ms {
			h, err := tlog.StoredHashes(int64(i), m, read)
			if err != nil {
				t.Fatal(err)
			}
			hashes = append(hashes, h...)
		}
		want, err := tlog.TreeHash(int64(n), read)
		if err != nil {
			t.Fatal(err)
		}
		var root []byte
		sigs, err := signature.SignAll(ms, func(m []byte) ([]byte, error) { root = bytes.Clone(m); return make([]byte, 64), nil })
		if err != nil || !bytes.HasSuffix(root, want[:]) {
			t.Fatalf("the root of %d messages is %x, %v; by the standard it is %x", n, root, err, want)
		}
		for i, s := range sigs {
			path, err := tlog.ProveRecord(int64(n), int64(i), read)
			if err != nil {
				t.Fatal(err)
			}
			got := s[66:]
			for _, h := range path {
				if !bytes.HasPrefix(got, h[:]) {
					t.Fatalf("the path of message %d of %d is not the standard's", i, n)
				}
				got = got[len(h):]
			}
			if len(got) > 0 {
				t.Fatalf("the path of message %d of %d is too long", i, n)
			}
		}
	}
}

func TestNoBitOfASignatureCanBeChanged(t *testing.T) {
	pub, sign := pair(t)
	ms := messages(11)
	sigs, err := signature.SignAll(ms, sign)
	if err != nil {
		t.Fatal(err)
	}
	var v signature.Verifier
	for _, i := range []int{0, 6, 10} { // paths of three lengths and forms
		s := sigs[i]
		if !v.Verify(pub, ms[i], s) { // it is remembered now, which must not help the changed ones
			t.Fatal(i)
		}
		for bit := range len(s) * 8 {
			c := bytes.Clone(s)
			c[bit/8] ^= 1 << (bit % 8)
			if v.Verify(pub, ms[i], c) && !sameTree(c, s) {
				t.Fatalf("bit %d of signature %d was changed, and it is verified", bit, i)
			}
		}
		for _, c := range [][]byte{nil, s[:64], s[:65], s[:66], s[:len(s)-1], s[:len(s)-32], append(bytes.Clone(s), make([]byte, 32)...), append(bytes.Clone(s), 0)} {
			if v.Verify(pub, ms[i], c) {
				t.Fatalf("signature %d is verified with %d bytes of %d", i, len(c), len(s))
			}
		}
	}
}

// sameTree: a tree of another size may have the same path at this place. It proves the same.
func sameTree(a, b []byte) bool {
	return slices.Equal(a[:64], b[:64]) && slices.Equal(a[66:], b[66:])
}

// What signs a root must not pass for a message, nor the other way round.
func TestARootIsNoMessage(t *testing.T) {
	pub, sign := pair(t)
	var root []byte
	sigs, err := signature.SignAll(messages(2), func(m []byte) ([]byte, error) {
		root = bytes.Clone(m)
		return sign(m)
	})
	if err != nil {
		t.Fatal(err)
	}
	one := signature.Message(30, nil)
	if len(root) == len(one) || bytes.HasPrefix(root, one[:17]) || signature.Verify(pub, one, sigs[0][:64]) {
		t.Errorf("%q can be taken for %q", root, one)
	}
}

func TestManyTreesAreForgotten(t *testing.T) {
	pub, sign := pair(t)
	var v signature.Verifier
	var first [][]byte
	for n := range 1000 {
		ms := [][]byte{signature.Message(int32(n), nil), signature.Message(int32(n), []byte("b"))}
		sigs, err := signature.SignAll(ms, sign)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			first = sigs
		}
		if !v.Verify(pub, ms[0], sigs[0]) || !v.Verify(pub, ms[1], sigs[1]) {
			t.Fatal(n)
		}
	}
	if !v.Verify(pub, signature.Message(0, nil), first[0]) {
		t.Error("a tree that was forgotten is not verified again")
	}
}

func TestSigningMayFail(t *testing.T) {
	want := errors.New("no key")
	for _, n := range []int{1, 2} {
		if _, err := signature.SignAll(messages(n), func([]byte) ([]byte, error) { return nil, want }); !errors.Is(err, want) {
			t.Errorf("%d messages: %v", n, err)
		}
	}
	if out, err := signature.SignAll(nil, nil); out != nil || err != nil {
		t.Error(out, err)
	}
	if _, err := signature.SignAll(messages(signature.MaxEvents+1), nil); err == nil {
		t.Error("more than MaxEvents are signed")
	}
}

func FuzzVerify(f *testing.F) {
	pub, sign := pair(f)
	ms := messages(5)
	sigs, err := signature.SignAll(ms, sign)
	if err != nil {
		f.Fatal(err)
	}
	for i := range ms {
		f.Add(ms[i], sigs[i])
	}
	var v signature.Verifier
	f.Fuzz(func(t *testing.T, message, sig []byte) {
		if !v.Verify(pub, message, sig) {
			return
		}
		for i := range ms {
			if bytes.Equal(message, ms[i]) && bytes.Equal(sig[:64], sigs[i][:64]) {
				return
			}
		}
		t.Errorf("%x is verified for %x", sig, message)
	})
}

func BenchmarkVerify(b *testing.B) {
	pub, sign := pair(b)
	for _, n := range []int{1, 8} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ms := messages(n)
			sigs, err := signature.SignAll(ms, sign)
			if err != nil {
				b.Fatal(err)
			}
			var v signature.Verifier
			for i := 0; b.Loop(); i++ {
				if n > 1 && i%n == 0 {
					v = signature.Verifier{}
				}
				if !v.Verify(pub, ms[i%n], sigs[i%n]) {
					b.Fatal(i)
				}
			}
		})
	}
}

func BenchmarkSign(b *testing.B) {
	_, sign := pair(b)
	for _, n := range []int{1, 8} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ms := messages(n)
			for i := 0; b.Loop(); i += n {
				if _, err := signature.SignAll(ms, sign); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
