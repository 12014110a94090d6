package rest

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTokensOverREST(t *testing.T) {
	g := start(t)
	status, body, header := g.do(t, "POST", "/v1/tokens", `{"name": "ci"}`)
	var made struct{ Name, Token string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != 200 || made.Name != "ci" || header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", status, body)
	}
	main := g.token
	g.token = made.Token
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/v1/node", "", 200, "consumer"},
		{"GET", "/v1/tokens", "", 200, `"name":"ci"`},
		{"POST", "/v1/session:code", "", 200, "code"},
		{"POST", "/v1/tokens", `{"name": "another"}`, 403, "TOKEN_NOT_MAIN"},
		{"POST", "/v1/tokens/main:revoke", "", 403, "TOKEN_NOT_MAIN"},
	} {
		if status, body, _ := g.do(t, c.method, c.path, c.body); status != c.status || !strings.Contains(body, c.says) || strings.Contains(body, made.Token) {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
	g.token = main
	for _, c := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/v1/tokens", `{"name": "ci"}`, 409, "TOKEN_EXISTS"},
		{"/v1/tokens", `{"name": "../x"}`, 400, "TOKEN_NAME"},
		{"/v1/tokens", `{}`, 400, "TOKEN_NAME"},
		{"/v1/tokens", `[]`, 400, "BODY_INVALID"},
		{"/v1/tokens/nobody:revoke", "", 404, "TOKEN_NOT_FOUND"},
		{"/v1/tokens/ci:revoke", "", 200, "{}"},
		{"/v1/tokens/ci:revoke", "", 404, "TOKEN_NOT_FOUND"},
	} {
		if status, body, _ := g.do(t, "POST", c.path, c.body); status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s %s: %d %s", c.path, c.body, status, body)
		}
	}
	g.token = made.Token
	if status, body, _ := g.do(t, "GET", "/v1/node", ""); status != 401 {
		t.Errorf("a revoked token: %d %s", status, body)
	}
	if strings.Contains(g.log.String(), made.Token) {
		t.Error("a token is in the log")
	}
}
