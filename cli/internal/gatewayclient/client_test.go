package gatewayclient

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
)

func serve(t *testing.T, status int, body string) (*Client, *http.Request) {
	t.Helper()
	got := &http.Request{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*got = *r
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	c, err := New(s.URL+"/", strings.NewReader("word\n"))
	if err != nil {
		t.Fatal(err)
	}
	return c, got
}

func TestCode(t *testing.T) {
	c, got := serve(t, 200, `{"code": "abc", "expires_in": "1m0s", "more": 1}`)
	code, lifetime, err := c.Code(t.Context())
	if err != nil || code != "abc" || lifetime != time.Minute || got.Method != "POST" || got.URL.Path != "/v1/session:code" || got.Header.Get("Authorization") != "Bearer word" {
		t.Errorf("%s %v %v, asked %s %s", code, lifetime, err, got.Method, got.URL)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		code   codes.Code
		says   string
	}{
		{"another token", 401, `{"code": "UNAUTHENTICATED", "reason": "TOKEN_WRONG", "message": "this is no token"}`, codes.Unauthenticated, "this is no token"},
		{"an older gateway", 404, `{"code": "NOT_FOUND", "reason": "PATH_NOT_FOUND", "message": "there is no POST"}`, codes.FailedPrecondition, "this release"},
		{"another program", 200, `<html>`, codes.FailedPrecondition, "this release"},
		{"another program that knows nothing of it", 404, `not found`, codes.FailedPrecondition, "this release"},
		{"no code", 200, `{}`, codes.FailedPrecondition, "this release"},
		{"a redirect", 302, ``, codes.FailedPrecondition, "this release"},
		{"something new", 418, `{"reason": "TEAPOT", "message": "short and stout"}`, codes.Unknown, "short and stout"},
	} {
		g, _ := serve(t, c.status, c.body)
		_, _, err := g.Code(t.Context())
		if f := fault.From(err); f == nil || f.Code != c.code || !strings.Contains(f.Message, c.says) || strings.Contains(f.Message, "word") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	g, _ := serve(t, 200, "")
	g.URL = "http://127.0.0.1:1"
	if _, _, err := g.Code(t.Context()); fault.From(err).Code != codes.Unavailable || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("%v", err)
	}
}

func TestWhatCannotBeAsked(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:80", "ftp://x", "http://", "http://u:p@x", "http://x/path", "http://x?q", "http://x#f", "http://\x00"} {
		if _, err := New(bad, strings.NewReader("word")); fault.From(err) == nil || fault.From(err).Reason != "GATEWAY_INVALID" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "  \n", "two words", "two\nlines"} {
		if _, err := New("http://x", strings.NewReader(bad)); fault.From(err) == nil || fault.From(err).Reason != "TOKEN_INVALID" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := New("http://x", iotest.ErrReader(errors.New("broken"))); err == nil {
		t.Error("a token that cannot be read is none")
	}
	file := filepath.Join(t.TempDir(), "token")
	if _, err := Open("http://x", file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(file, []byte("word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Open("http://x", file); err != nil || c.token != "word" {
		t.Errorf("%v", err)
	}
}
