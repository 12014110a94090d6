package crypt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/shallot-net/shallot/services/task/internal/app"
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
		sealed, _, err := c.SealKey(key, mine.Recipient(), "")
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
	good, _, err := NewCipher().SealKey(make([]byte, 16), k.Recipient(), "")
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
	if _, _, err := NewCipher().SealKey(make([]byte, 16), "age1pq-nonsense", ""); err == nil {
		t.Error("sealed to nobody")
	}
	if _, _, err := NewCipher().SealKey(nil, k.Recipient(), ""); err == nil {
		t.Error("sealed nothing")
	}
	if _, err := NewCipher().EncryptResult("nobody", nil, io.Discard); err == nil {
		t.Error("encrypted to nobody")
	}
}

// TestAgreementsAreSharedWithinAScope: one key agreement serves many tasks, of one sender only, and not for ever.
func TestAgreementsAreSharedWithinAScope(t *testing.T) {
	t.Parallel()
	k, c := newSealing(t), NewCipher()
	seal := func(b byte, scope string) (key, sealed []byte) {
		key = bytes.Repeat([]byte{b}, 16)
		sealed, _, err := c.SealKey(key, k.Recipient(), scope)
		if err != nil {
			t.Fatal(err)
		}
		return key, sealed
	}
	stanza := func(sealed []byte) string { return string(sealed[1 : 1+agreedSize]) }
	_, first := seal(0, "")
	_, other := seal(0, "persona")
	if stanza(first) == stanza(other) {
		t.Fatal("two scopes can be told to be one sender's")
	}
	seen := map[string]int{}
	type pair struct{ key, sealed []byte }
	var all []pair
	for i := range 2 * agreeUses {
		key, sealed := seal(byte(i), "")
		seen[stanza(sealed)]++
		all = append(all, pair{key, sealed})
	}
	if len(seen) != 3 { // the first one's, one that is used up, one that has begun
		t.Fatalf("%d agreements for %d keys", len(seen), len(all))
	}
	for i := len(all) - 1; i >= 0; i-- { // in any order
		if got, err := k.OpenKey(all[i].sealed); err != nil || !bytes.Equal(got, all[i].key) {
			t.Fatalf("key %d: %x, %v", i, got, err)
		}
	}
	if len(k.agreed) != 3 {
		t.Fatalf("the provider remembers %d agreements", len(k.agreed))
	}
	for range 10 {
		if _, err := k.OpenKey(append([]byte{sealVersion}, bytes.Repeat([]byte{9}, sealSize-1)...)); err == nil {
			t.Fatal("nonsense was opened")
		}
	}
	if len(k.agreed) != 3 {
		t.Fatal("nonsense is remembered")
	}
	mixed := append(bytes.Clone(all[0].sealed[:1+agreedSize]), all[len(all)-1].sealed[1+agreedSize:]...)
	if _, err := k.OpenKey(mixed); err == nil {
		t.Fatal("a key was opened under another agreement")
	}
}

// TestTaskKeysAreAgeKeys: what this package encrypts age itself decrypts, and the other way round.
func TestASealNamesWhatTheProviderHas(t *testing.T) {
	t.Parallel()
	k, c := newSealing(t), NewCipher()
	seal := func(scope string) (key, sealed []byte, s app.Seal) {
		t.Helper()
		key = bytes.Repeat([]byte{7}, 16)
		sealed, s, err := c.SealKey(key, k.Recipient(), scope)
		if err != nil {
			t.Fatal(err)
		}
		return key, sealed, s
	}
	open := func(sealed, want []byte) {
		t.Helper()
		whole, err := k.Whole(sealed)
		if err != nil || len(whole) != sealSize {
			t.Fatalf("%d bytes, %v", len(whole), err)
		}
		if got, err := k.OpenKey(whole); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%x, %v", got, err)
		}
	}
	key, first, s := seal("persona")
	open(first, key)
	if _, again, _ := seal("persona"); len(again) != sealSize {
		t.Fatal("named before the provider was known to have it")
	}
	s.Heard()
	key, short, s := seal("persona")
	if len(short) != namedSize {
		t.Fatalf("%d bytes for what the provider has", len(short))
	}
	open(short, key)
	if _, other, _ := seal("another"); len(other) != sealSize {
		t.Fatal("one persona names what another has agreed on")
	}
	if _, err := newSealing(t).Whole(short); !errors.Is(err, app.ErrSealUnknown) {
		t.Fatalf("a provider that has never seen it: %v", err)
	}
	for _, bad := range [][]byte{short[:len(short)-1], append(bytes.Clone(short), 0)} {
		if whole, err := k.Whole(bad); err == nil {
			if _, err := k.OpenKey(whole); err == nil {
				t.Error("another length was opened")
			}
		}
	}
	if !s.Lost() {
		t.Error("it named something")
	}
	_, whole, s := seal("persona")
	if len(whole) != sealSize || s.Lost() {
		t.Error("after a loss all is said again")
	}
	s.Heard()
	if _, b, _ := seal("persona"); len(b) != sealSize {
		t.Error("a provider that has forgotten is trusted to remember at once")
	}
	_, _, s = seal("")
	s.Heard()
	if _, b, _ := seal(""); len(b) != sealSize {
		t.Error("named without a persona")
	}
}

func TestTaskKeysAreAgeKeys(t *testing.T) {
	t.Parallel()
	key, err := NewKeys(0).Take()
	if err != nil {
		t.Fatal(err)
	}
	raw := func(s, prefix string) []byte {
		b, err := keyBase64.DecodeString(strings.TrimPrefix(s, prefix))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	theirs, err := age.ParseHybridIdentity(strings.ToUpper(bech32("age-secret-key-pq-", raw(key.Secret(), secretPrefix))))
	if err != nil {
		t.Fatal(err)
	}
	text := bech32("age1pq", raw(key.Recipient(), recipientPrefix))
	if theirs.Recipient().String() != text {
		t.Fatal("the two halves are not one key")
	}
	for _, to := range []string{key.Recipient(), text} {
		var out bytes.Buffer
		w, err := NewCipher().EncryptResult(to, nil, &out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("result")); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		if b, err := key.Open(out.Bytes()); err != nil || string(b) != "result" {
			t.Fatalf("%q, %v", b, err)
		}
		r, err := age.Decrypt(&out, theirs)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != "result" {
			t.Fatalf("age itself: %q, %v", b, err)
		}
	}
	old, err := NewKeys(0).Parse(theirs.String()) // as stores of earlier versions have them
	if err != nil || old.Recipient() != text || old.Secret() != theirs.String() {
		t.Fatal(err)
	}
	for _, bad := range []string{recipientPrefix, recipientPrefix + "AAAA", recipientPrefix + "*", secretPrefix} {
		if _, err := NewCipher().EncryptResult(bad, nil, io.Discard); err == nil {
			t.Errorf("encrypted to %q", bad)
		}
		if _, err := NewKeys(0).Parse(bad); err == nil {
			t.Errorf("%q is a secret", bad)
		}
	}
}

// bech32 is the text form that age uses (BIP 173, without its limit on length).
func bech32(prefix string, data []byte) string {
	const letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	step := func(chk uint32, v byte) uint32 {
		top := chk >> 25
		chk = (chk&0x1ffffff)<<5 ^ uint32(v)
		for i, g := range []uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				chk ^= g
			}
		}
		return chk
	}
	chk := uint32(1)
	for _, c := range []byte(prefix) {
		chk = step(chk, c>>5)
	}
	chk = step(chk, 0)
	for _, c := range []byte(prefix) {
		chk = step(chk, c&31)
	}
	out := prefix + "1"
	add := func(v byte) { chk = step(chk, v); out += string(letters[v]) }
	acc, bits := uint32(0), 0
	for _, b := range data {
		acc, bits = acc<<8|uint32(b), bits+8
		for ; bits >= 5; bits -= 5 {
			add(byte(acc >> (bits - 5) & 31))
		}
	}
	if bits > 0 {
		add(byte(acc << (5 - bits) & 31))
	}
	final := chk
	for range 6 {
		final = step(final, 0)
	}
	final ^= 1
	for i := range 6 {
		out += string(letters[final>>(5*(5-i))&31])
	}
	return out
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
		w, err := NewCipher().EncryptResult(k.Recipient(), k.ResultKey(), &out)
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
	sealed, _, err := c.SealKey(make([]byte, 16), k.Recipient(), "")
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
		s, _, err := c.SealKey(make([]byte, 16), k.Recipient(), "")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.OpenKey(s); err != nil {
			b.Fatal(err)
		}
	}
}
