package command

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var asked []string
	w.gateway(func(rw http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.EscapedPath())
		var body struct{ Name string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		switch {
		case r.Method == http.MethodGet:
			fmt.Fprint(rw, `{"tokens": [{"name": "main", "created_at": "2026-01-02T03:04:05Z"}, {"name": "ci", "created_at": "2026-02-03T04:05:06Z"}]}`)
		case body.Name == "ci":
			fmt.Fprint(rw, `{"name": "ci", "token": "THE-TOKEN"}`)
		case strings.HasSuffix(r.URL.Path, "/ci:revoke"):
			fmt.Fprint(rw, `{}`)
		default:
			rw.WriteHeader(http.StatusNotFound)
			fmt.Fprint(rw, `{"reason": "TOKEN_NOT_FOUND", "message": "there is no such token"}`)
		}
	})
	w.run("token", "add", "ci").want(t, 0, "THE-TOKEN\n", "this once")
	if v := w.run("token", "add", "ci", "--output", "json").json(t); v["token"] != "THE-TOKEN" || v["name"] != "ci" {
		t.Errorf("%v", v)
	}
	if r := w.run("token", "ls"); r.code != 0 || !strings.Contains(r.stdout, "main") || !strings.Contains(r.stdout, "2026-02-03") {
		t.Errorf("%+v", r)
	}
	w.run("token", "revoke", "ci").want(t, 0, "", "ci is revoked")
	w.run("token", "revoke", "a/b").want(t, exitNotFound, "", "no such token")
	if last := asked[len(asked)-1]; last != "POST /v1/tokens/a%2Fb:revoke" {
		t.Errorf("asked %s", last)
	}
	w.run("token", "add").want(t, exitUsage, "", "name")
}
