package access

import (
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/shallot-net/shallot/kit/home"
)

func bearer(word string) []string { return []string{"Bearer " + word} }

func TestNamedTokens(t *testing.T) {
	o := begun(t)
	beside := keyring(t, o.File, o.clock) // another gateway of the node
	ci, err := o.Add(o.session, "ci")     // a session of the main token may
	if err != nil || len(ci) < minToken {
		t.Fatalf("%q %v", ci, err)
	}
	for _, k := range []*Keyring{o.Keyring, beside} {
		if c, ok := k.token(bearer(ci)); !ok || c.Token != "ci" || c.Session != "" {
			t.Errorf("%+v %v", c, ok)
		}
	}
	if raw, err := os.ReadFile(o.shared.path); err != nil || strings.Contains(string(raw), ci) {
		t.Errorf("the token itself is in the file, or %v", err)
	}
	if info, err := os.Stat(o.shared.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	list := beside.Tokens()
	if len(list) != 2 || list[0].Name != Main || list[1].Name != "ci" || list[1].SHA256 != "" || !list[1].Created.Equal(o.clock.now()) {
		t.Errorf("%+v", list)
	}

	// A session of its own, at the other gateway; both end with it.
	c, _ := beside.token(bearer(ci))
	code, _, err := beside.Code(c)
	if err != nil {
		t.Fatal(err)
	}
	session, cookie, err := o.Begin(code)
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []*Caller{c, session} {
		if _, err := o.Add(who, "more"); reason(err) != "TOKEN_NOT_MAIN" {
			t.Errorf("%v", err)
		}
		if err := o.Revoke(who, "ci"); reason(err) != "TOKEN_NOT_MAIN" {
			t.Errorf("%v", err)
		}
	}
	unused, _, err := o.Code(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, release := beside.Hold(t.Context(), c)
	defer release()
	if err := o.Revoke(o.session, "ci"); err != nil {
		t.Fatal(err)
	}
	beside.look()
	<-ctx.Done()
	if _, ok := beside.token(bearer(ci)); ok {
		t.Error("a revoked token is taken")
	}
	if d := o.ask(t, "GET", own, cookie, nil); d == nil {
		t.Error("a session goes on whose token is revoked")
	}
	if _, _, err := o.Begin(unused); reason(err) != "CODE_WRONG" {
		t.Errorf("a code of a revoked token: %v", err)
	}
	// Under the old name there is another one, whose sessions are others, too.
	again, err := o.Add(o.session, "ci")
	if err != nil || again == ci {
		t.Fatal(err)
	}
	if d := o.ask(t, "GET", own, cookie, nil); d == nil {
		t.Error("a session of the old token is one of the new one")
	}
	if d := o.ask(t, "GET", own, o.cookie, nil); d != nil {
		t.Errorf("the session of the main token: %v", d)
	}
}

func TestTokensThatCannotBe(t *testing.T) {
	o := begun(t)
	for _, bad := range []string{"", "CI", "a b", "../x", "-a", strings.Repeat("a", 64), "a\n", "ä", "a:revoke"} {
		if _, err := o.Add(o.session, bad); reason(err) != "TOKEN_NAME" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := o.Add(o.session, Main); reason(err) != "TOKEN_EXISTS" {
		t.Errorf("%v", err)
	}
	for i := range maxTokens {
		if _, err := o.Add(o.session, "t"+strings.Repeat("x", i%50)+string(rune('a'+i/50))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Add(o.session, "more"); reason(err) != "TOKENS_TOO_MANY" {
		t.Errorf("%v", err)
	}
	if err := o.Revoke(o.session, "tz"); reason(err) != "TOKEN_NOT_FOUND" || !strings.Contains(err.Error(), "did you mean") {
		t.Errorf("%v", err)
	}
}

// Revoking the main token makes another one: a node is never without.
func TestMainTokenIsReplaced(t *testing.T) {
	o := begun(t)
	if err := o.Revoke(o.session, Main); err != nil {
		t.Fatal(err)
	}
	if now := word(t, o.File); now == o.token {
		t.Error("it is as before")
	} else if _, ok := o.Keyring.token(bearer(now)); !ok {
		t.Error("the new one is not taken")
	}
	if _, ok := o.Keyring.token(bearer(o.token)); ok {
		t.Error("the old one is taken")
	}
	if d := o.ask(t, "GET", own, o.cookie, nil); d == nil {
		t.Error("its session goes on")
	}
}

func TestManyGatewaysAddTokens(t *testing.T) {
	o := begun(t)
	var wg sync.WaitGroup
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, name := range names {
		k := keyring(t, o.File, o.clock)
		wg.Go(func() {
			if _, err := k.Add(o.session, name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := o.Tokens(); len(got) != len(names)+1 {
		t.Errorf("%v", got)
	}
}

// A file that is spoilt while gateways run changes nothing, and none starts on it.
func TestSpoiltFiles(t *testing.T) {
	for name, spoil := range map[string]func(o *one) error{
		"no JSON":            func(o *one) error { return os.WriteFile(o.shared.path, []byte("{"), 0o600) },
		"too large":          func(o *one) error { return os.WriteFile(o.shared.path, make([]byte, maxShared+1), 0o600) },
		"open to others":     func(o *one) error { return os.Chmod(o.shared.path, 0o644) },
		"a torn token":       func(o *one) error { return os.WriteFile(o.File, []byte("x"), 0o600) },
		"a token for others": func(o *one) error { return os.Chmod(o.File, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			o := begun(t)
			ci, err := o.Add(o.session, "ci")
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(o); err != nil {
				t.Fatal(err)
			}
			o.look()
			if _, ok := o.Keyring.token(bearer(ci)); !ok {
				t.Error("a good token is not taken any more")
			}
			if _, err := OpenKeyring(o.File, home.Home{}, o.log, o.clock.now); err == nil {
				t.Error("a gateway starts on it")
			}
		})
	}
}
