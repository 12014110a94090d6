package access

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/shallot-net/shallot/kit/fault"
)

// one is a gateway with a session.
type one struct {
	*Keyring
	clock   *clock
	token   string
	session *Caller
	cookie  string
}

func begun(t *testing.T) *one {
	t.Helper()
	c := newClock()
	o := &one{Keyring: keyring(t, filepath.Join(t.TempDir(), "gateway.token"), c), clock: c}
	o.token = word(t, o.File)
	var err error
	if o.session, o.cookie, err = o.Begin(o.code(t)); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *one) code(t *testing.T) string {
	t.Helper()
	main, ok := o.Keyring.token([]string{"Bearer " + o.token})
	if !ok {
		t.Fatal("the token is not taken")
	}
	code, _, err := o.Code(main)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// ask is a request to 127.0.0.1:8080, with a cookie; "" in the place of a header is none.
func (o *one) ask(t *testing.T, method, name, value string, headers map[string]string) *Denial {
	t.Helper()
	hosts, err := NewHosts("127.0.0.1:8080", []string{"localhost:8080-8089"})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, "/v1/tasks", nil)
	r.Host = "127.0.0.1:8080"
	if value != "" {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	for k, v := range headers {
		switch {
		case k == "Host":
			r.Host = v
		case v != "":
			r.Header.Set(k, v)
		}
	}
	_, d := Guard{Keys: o.Keyring, Hosts: hosts}.Check(r, Login)
	return d
}

const own = "shallot_session_8080"

func TestWhoMayUseASession(t *testing.T) {
	o := begun(t)
	origin := func(v string) map[string]string { return map[string]string{"Origin": v} }
	site := func(v string) map[string]string { return map[string]string{"Sec-Fetch-Site": v} }
	for _, c := range []struct {
		name, method string
		headers      map[string]string
		want         int
	}{
		{"reading, by the page", "GET", site("same-origin"), 0},
		{"reading, by the person", "GET", site("none"), 0},
		{"reading, by an old browser", "GET", nil, 0},
		{"reading, by a page of another port", "GET", site("same-site"), 403},
		{"reading, by a page of another site", "GET", site("cross-site"), 403},
		{"reading, by what nobody knows", "GET", site("whatever"), 403},
		{"changing, by the page", "POST", map[string]string{"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}, 0},
		{"changing, with the origin alone", "DELETE", origin("http://127.0.0.1:8080"), 0},
		{"changing, with the site alone", "POST", site("same-origin"), 0},
		{"changing, with neither", "POST", nil, 403},
		{"changing, by the person", "POST", site("none"), 403},
		{"changing, by a page of another port", "POST", map[string]string{"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"}, 403},
		{"changing, by a page of another name of this gateway", "POST", origin("http://localhost:8080"), 403},
		{"changing, by a page of a gateway beside it", "POST", origin("http://localhost:8085"), 403},
		{"changing, by a page of another site", "POST", origin("https://evil.example.com"), 403},
		{"changing, by no page", "POST", origin("null"), 403},
		{"changing, with an origin that is none", "POST", origin("127.0.0.1:8080"), 403},
		{"changing, with a user in the origin", "POST", origin("http://127.0.0.1:8080@evil.example.com"), 403},
		{"changing, with a prefix of the origin", "POST", origin("http://127.0.0.1:8080.evil.example.com"), 403},
		{"changing, from a file", "POST", origin("file://127.0.0.1:8080"), 403},
		{"changing, with an origin and a site that differ", "POST", map[string]string{"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-site"}, 403},
		{"another method", "PATCH", nil, 403},
		{"a method of its own", "FETCH", nil, 403},
		{"a rebound name", "GET", map[string]string{"Host": "evil.example.com:8080"}, 403},
		{"a rebound name and its page", "POST", map[string]string{"Host": "evil.example.com:8080", "Origin": "http://evil.example.com:8080", "Sec-Fetch-Site": "same-origin"}, 403},
		{"another port of this machine", "GET", map[string]string{"Host": "127.0.0.1:9090"}, 403},
		{"the method in a header", "GET", map[string]string{"X-Http-Method-Override": "DELETE", "Sec-Fetch-Site": "same-site"}, 403},
		{"a wrong token beside it", "GET", map[string]string{"Authorization": "Bearer " + strings.Repeat("x", 26)}, 401},
		{"an empty token beside it", "GET", map[string]string{"Authorization": "Bearer"}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := 0
			if d := o.ask(t, c.method, own, o.cookie, c.headers); d != nil {
				got = d.Status
			}
			if got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

// forged is a word as a session is, signed with a key and method of the test's.
func forged(t *testing.T, method jwt.SigningMethod, key any, claims jwt.Claims) string {
	t.Helper()
	w, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWordsThatAreNoSession(t *testing.T) {
	o, other := begun(t), begun(t)
	good := jwt.RegisteredClaims{ID: "x", Subject: Main, ExpiresAt: jwt.NewNumericDate(o.clock.now().Add(time.Hour))}
	key := o.keys.Load().main.key(kindSession, o.session.hash)
	if d := o.ask(t, "GET", own, forged(t, jwt.SigningMethodHS256, key, good), nil); d != nil {
		t.Fatalf("what is signed as sessions are is refused: %v", d)
	}
	parts := strings.Split(o.cookie, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	longer := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"main","exp":99999999999,"jti":"x"}`))
	endless := good
	endless.ExpiresAt = nil
	unknown := good
	unknown.Subject = "nobody"
	for name, w := range map[string]string{
		"rubbish":                 "x",
		"three dots":              "...",
		"without a signature":     parts[0] + "." + parts[1] + ".",
		"by no method":            none + "." + parts[1] + ".",
		"by no method, signed":    none + "." + parts[1] + "." + parts[2],
		"with other claims":       parts[0] + "." + longer + "." + parts[2],
		"with one bit less":       o.cookie[:len(o.cookie)-2] + string(o.cookie[len(o.cookie)-2]^1) + o.cookie[len(o.cookie)-1:],
		"with more behind it":     o.cookie + "A",
		"of another node":         other.cookie,
		"a code":                  o.code(t),
		"the token":               o.token,
		"by another method":       forged(t, jwt.SigningMethodHS512, key, good),
		"by the hash as key":      forged(t, jwt.SigningMethodHS256, o.session.hash[:], good),
		"by an empty key":         forged(t, jwt.SigningMethodHS256, []byte{}, good),
		"without an end":          forged(t, jwt.SigningMethodHS256, key, endless),
		"of a token that is none": forged(t, jwt.SigningMethodHS256, key, unknown),
		"too long":                o.cookie + strings.Repeat("A", 8<<10),
	} {
		for _, cookie := range []string{own, "shallot_session_9999"} {
			if d := o.ask(t, "GET", cookie, w, nil); d == nil || d.Status != http.StatusUnauthorized {
				t.Errorf("%s as %s: %v", name, cookie, d)
			} else if cookie == own && d.Reason != "SESSION_ENDED" || cookie != own && d.Reason != "TOKEN_MISSING" {
				t.Errorf("%s as %s is %s", name, cookie, d.Reason)
			}
		}
	}
	for _, name := range []string{"shallot_session_9999", own} { // of another port of a gateway with the same token
		if d := o.ask(t, "GET", name, o.cookie, nil); d != nil {
			t.Errorf("%s: %v", name, d)
		}
	}
	if d := o.ask(t, "GET", "session", o.cookie, nil); d == nil {
		t.Error("a cookie of another name is a session")
	}
	if d := o.ask(t, "GET", own, "", map[string]string{"Authorization": "Bearer " + o.cookie}); d == nil {
		t.Error("a session is taken for a token")
	}
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return fault.From(err).Reason
}

func TestCodes(t *testing.T) {
	o := begun(t)
	beside := keyring(t, o.File, o.clock) // another gateway of the node
	refuse := func(name, code, want string) {
		t.Helper()
		o.clock.later(time.Minute) // so that no answer is one of too many
		if _, _, err := o.Begin(code); reason(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	used := o.code(t)
	stolen, cookie, err := beside.Begin(used)
	if err != nil {
		t.Fatal(err)
	}
	if d := o.ask(t, "GET", own, cookie, nil); d != nil {
		t.Fatal(d)
	}
	watched, release := o.Hold(t.Context(), stolen)
	defer release()
	for _, k := range []*Keyring{o.Keyring, beside} {
		if _, _, err := k.Begin(used); reason(err) != "CODE_USED" {
			t.Errorf("a code a second time: %v", err)
		}
	}
	<-watched.Done() // whoever was first, was it the right one?
	if d := o.ask(t, "GET", own, cookie, nil); d == nil {
		t.Error("a session goes on whose code was used twice")
	}
	late := o.code(t)
	o.clock.later(CodeLifetime)
	refuse("a late one", late, "CODE_EXPIRED")
	refuse("a session", o.cookie, "CODE_WRONG")
	refuse("the token", o.token, "CODE_WRONG")
	refuse("nothing", "", "CODE_WRONG")
	refuse("much", strings.Repeat("x", 4000), "CODE_WRONG")
	refuse("another node's", begun(t).code(t), "CODE_WRONG")
}

// Guessing is slowed down and keeps nobody out.
func TestManyWrongCodes(t *testing.T) {
	o := begun(t)
	got := map[string]int{}
	for range 50 {
		_, _, err := o.Begin("wrong")
		got[reason(err)]++
	}
	if got["CODE_WRONG"] != 5 || got["CODES_TOO_MANY"] != 45 {
		t.Errorf("%v", got)
	}
	if _, _, err := o.Begin(o.code(t)); err != nil {
		t.Errorf("a good code among them: %v", err)
	}
}

func TestHowSessionsEnd(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, o *one){
		"by themselves": func(_ *testing.T, o *one) { o.clock.later(SessionLifetime) },
		"by logging out": func(t *testing.T, o *one) {
			if err := o.End(o.session); err != nil {
				t.Error(err)
			}
		},
		"by logging out at another gateway": func(t *testing.T, o *one) {
			if err := keyring(t, o.File, o.clock).End(o.session); err != nil {
				t.Error(err)
			}
			o.look()
		},
		"with their token, when its file goes": func(t *testing.T, o *one) {
			if err := os.Remove(o.File); err != nil {
				t.Error(err)
			}
			o.look()
			if word(t, o.File) == o.token {
				t.Error("the token is as before")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := begun(t)
			if d := o.ask(t, "GET", own, o.cookie, nil); d != nil {
				t.Fatal(d)
			}
			ctx, release := o.Hold(context.Background(), o.session)
			defer release()
			end(t, o)
			if d := o.ask(t, "GET", own, o.cookie, nil); d == nil || d.Reason != "SESSION_ENDED" {
				t.Errorf("%v", d)
			}
			if name != "by themselves" { // whose clock is that of the machine
				<-ctx.Done()
			}
			if ctx, release := o.Hold(context.Background(), o.session); ctx.Err() == nil && name != "by themselves" {
				t.Error("a request that came just before is answered")
				release()
			}
		})
	}
}

// A token that is given read-only, in a folder where nothing can be written, still lets browsers in, each code once.
func TestCodesWhereNothingCanBeWritten(t *testing.T) {
	o := begun(t)
	o.shared.path = filepath.Join(t.TempDir(), "missing", "file") // a mode would not keep root out
	code := o.code(t)
	if _, _, err := o.Begin(code); err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Begin(code); reason(err) != "CODE_USED" {
		t.Errorf("%v", err)
	}
}

func TestCookie(t *testing.T) {
	o := begun(t)
	set := func(host, origin string, s *Caller, value string) []*http.Cookie {
		r := httptest.NewRequest("POST", "/v1/session", nil)
		r.Host = host
		r.Header.Set("Origin", origin)
		r.AddCookie(&http.Cookie{Name: "shallot_session_9000", Value: o.cookie})
		r.AddCookie(&http.Cookie{Name: "shallot_session_9001", Value: "of another node"})
		w := httptest.NewRecorder()
		o.SetCookie(w, r, s, value)
		return w.Result().Cookies()
	}
	c := set("127.0.0.1:8080", "http://127.0.0.1:8080", o.session, o.cookie)
	if len(c) != 1 || c[0].Name != own || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode || c[0].Path != "/" || c[0].Domain != "" || c[0].Secure ||
		c[0].MaxAge != int(SessionLifetime/time.Second) {
		t.Errorf("%v", c)
	}
	if c := set("node.example.org", "https://node.example.org", o.session, o.cookie); len(c) != 1 || c[0].Name != "shallot_session" || !c[0].Secure {
		t.Errorf("%v", c)
	}
	gone := set("127.0.0.1:8080", "http://127.0.0.1:8080", nil, "")
	if len(gone) != 2 || gone[0].MaxAge >= 0 || gone[0].Value != "" || gone[1].Name != "shallot_session_9000" || gone[1].MaxAge >= 0 {
		t.Errorf("%v", gone)
	}
}
