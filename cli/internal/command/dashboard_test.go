package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/cli/internal/supervisor"
)

const aToken = "a-word-that-opens-the-gateway"

// gateway puts a stand-in for a gateway beside the node.
func (w *world) gateway(handle http.HandlerFunc) *httptest.Server {
	w.t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+aToken {
			rw.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(rw, `{"code": "UNAUTHENTICATED", "reason": "TOKEN_WRONG", "message": "this is no token of this gateway"}`)
			return
		}
		handle(rw, r)
	}))
	w.t.Cleanup(s.Close)
	w.announce(supervisor.Gateway{URL: s.URL, TokenFile: w.file("gateway.token", aToken+"\n")})
	return s
}

func (w *world) announce(g supervisor.Gateway) {
	w.t.Helper()
	b, err := json.Marshal(g)
	if err == nil {
		err = os.WriteFile(filepath.Join(w.home, "run", "gateway.json"), b, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func code(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/session:code" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fmt.Fprint(w, `{"code": "a.b-c_d", "expires_in": "1m0s"}`)
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.gateway(code)
	link := s.URL + "/#code=a.b-c_d"
	var opened []string
	w.browse = func(link string) error { opened = append(opened, link); return nil }
	w.env["DISPLAY"] = ":0"
	w.run("dashboard").want(t, 0, link+"\n", "opened in a browser")
	w.run("dashboard", "--no-open").want(t, 0, link+"\n", "")
	if len(opened) != 1 || opened[0] != link {
		t.Errorf("opened: %v", opened)
	}
	if v := w.run("dashboard", "--no-open", "--output", "json").json(t); v["url"] != link || v["expires_in"] != "1m0s" {
		t.Errorf("%v", v)
	}
	w.browse = func(string) error { return errors.New("no such program") }
	w.run("dashboard").want(t, 0, link+"\n", "no such program")
	if runtime.GOOS == "linux" {
		delete(w.env, "DISPLAY")
		w.browse = func(string) error { t.Error("a browser without a display"); return nil }
		w.run("dashboard").want(t, 0, link+"\n", "no display here")
	}
	// Elsewhere, with a token that comes by a pipe.
	w.stdin = strings.NewReader(aToken + "\n")
	w.bare("dashboard", "--gateway", s.URL+"/", "--token-file", "-", "--no-open").want(t, 0, link+"\n", "")
	w.bare("dashboard", "--gateway", s.URL, "--token-file", w.file("t", "another"), "--no-open").want(t, exitDenied, "", "no token of this gateway")
}

func TestNoDashboard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("dashboard").want(t, exitNoNode, "", "gateway.log")
	w.announce(supervisor.Gateway{URL: "http://127.0.0.1:1", TokenFile: w.file("t", aToken)})
	w.run("dashboard").want(t, exitNoNode, "", "nobody answers at http://127.0.0.1:1")
	w.announce(supervisor.Gateway{URL: "http://127.0.0.1:1", TokenFile: "/nowhere/token"})
	w.run("dashboard").want(t, exitState, "", "/nowhere/token")
	w.gateway(func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusNotFound)
		fmt.Fprint(rw, `{"code": "NOT_FOUND", "reason": "PATH_NOT_FOUND", "message": "x"}`)
	})
	w.run("dashboard").want(t, exitState, "", "older")
	for _, args := range [][]string{{"--gateway", "http://x"}, {"--token-file", "x"}, {"--gateway", "x", "--token-file", "-"}} {
		w.bare(append([]string{"dashboard"}, args...)...).want(t, exitUsage, "", "")
	}
	w.run("dashboard", "--gateway", "http://x", "--token-file", "-").want(t, exitUsage, "", "leave --home")
	w.bare("--endpoint", "unix:/x", "dashboard").want(t, exitUsage, "", "--token-file FILE")
	w.stop()
	w.run("dashboard").want(t, exitState, "", "older") // the gateway answers, also while node does not
	if err := os.Remove(filepath.Join(w.home, "run", "gateway.json")); err != nil {
		t.Fatal(err)
	}
	w.run("dashboard").want(t, exitNoNode, "", "not running")
}
