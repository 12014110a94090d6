package rest

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/mtls"
)

func TestClients(t *testing.T) {
	dir := t.TempDir()
	ask := func(dir string) (int, string) {
		s := &server{Config: Config{TLSDir: dir}}
		w := httptest.NewRecorder()
		s.clients(w, httptest.NewRequest("GET", "/v1/clients", nil), nil)
		return w.Code, w.Body.String()
	}
	for _, c := range []struct {
		name, dir, file string
		status          int
		says            string
	}{
		{"sockets", "", "", 200, `"clients":[],"reason":"the processes of this node speak by Unix sockets`},
		{"no list", dir, "", 200, `"clients":[],"reason":"the authority has put no list`},
		{"a list", dir, `{"clients": [{"name": "laptop", "added_at": "2026-01-02T03:04:05Z", "expires_at": "2027-01-02T03:04:05Z", "revoked": true, "serial": "7"}]}`, 200,
			`{"clients":[{"name":"laptop","added_at":"2026-01-02T03:04:05Z","expires_at":"2027-01-02T03:04:05Z","revoked":true}],"reason":""}`},
		{"nobody", dir, `{"clients": []}`, 200, `{"clients":[],"reason":""}`},
		{"no JSON", dir, `{`, 400, "CLIENTS_UNREADABLE"},
	} {
		if c.file != "" {
			if err := os.WriteFile(filepath.Join(dir, mtls.FileClients), []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if status, body := ask(c.dir); status != c.status || !strings.Contains(body, c.says) || strings.Contains(body, dir) {
			t.Errorf("%s: %d %s", c.name, status, body)
		}
	}
}
