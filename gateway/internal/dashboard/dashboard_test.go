package dashboard

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func serve(h http.Handler, method, path string, headers map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func none(w http.ResponseWriter, _ *http.Request) { http.Error(w, "none", http.StatusNotFound) }

func small() http.Handler {
	return handler(fstest.MapFS{
		"index.html":         {Data: []byte("<!doctype html>")},
		"favicon.svg":        {Data: []byte("<svg/>")},
		"assets/a-1.js":      {Data: []byte("plain")},
		"assets/a-1.js.br":   {Data: []byte("b")},
		"assets/a-1.js.gz":   {Data: []byte("gz")},
		"assets/only.css":    {Data: []byte("css")},
		"assets/only.css.gz": {Data: []byte("z")},
		"notes":              {Data: []byte("of no kind that is known")},
	}, none)
}

func TestFiles(t *testing.T) {
	h := small()
	for _, c := range []struct {
		name, method, path, accept string
		status                     int
		body, coding, kind, cache  string
	}{
		{"the page", "GET", "/", "", 200, "<!doctype html>", "", "text/html; charset=utf-8", "no-cache"},
		{"its head", "HEAD", "/", "", 200, "", "", "text/html; charset=utf-8", "no-cache"},
		{"a script", "GET", "/assets/a-1.js", "", 200, "plain", "", "text/javascript; charset=utf-8", "immutable"},
		{"as brotli", "GET", "/assets/a-1.js", "gzip, deflate, br, zstd", 200, "b", "br", "text/javascript; charset=utf-8", "immutable"},
		{"as gzip", "GET", "/assets/a-1.js", "gzip;q=0.5, br;q=0", 200, "gz", "gzip", "text/javascript; charset=utf-8", "immutable"},
		{"refused codings", "GET", "/assets/a-1.js", "gzip; q=0, br; q=0.0", 200, "plain", "", "text/javascript; charset=utf-8", "immutable"},
		{"what has no brotli", "GET", "/assets/only.css", "br, gzip", 200, "z", "gzip", "text/css; charset=utf-8", "immutable"},
		{"a picture", "GET", "/favicon.svg", "", 200, "<svg/>", "", "image/svg+xml", "no-cache"},
		{"a compressed form by name", "GET", "/assets/a-1.js.br", "", 404, "none\n", "", "", ""},
		{"an unknown kind", "GET", "/notes", "", 404, "none\n", "", "", ""},
		{"another name of the page", "GET", "/index.html", "", 404, "none\n", "", "", ""},
		{"a folder", "GET", "/assets/", "", 404, "none\n", "", "", ""},
		{"a way out", "GET", "/assets/../../dashboard.go", "", 404, "none\n", "", "", ""},
		{"what is not there", "GET", "/assets/b.js", "", 404, "none\n", "", "", ""},
		{"a change", "POST", "/", "", 404, "none\n", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := serve(h, c.method, c.path, map[string]string{"Accept-Encoding": c.accept})
			if w.Code != c.status || w.Body.String() != c.body {
				t.Errorf("%d %q", w.Code, w.Body)
			}
			if c.status != 200 {
				return
			}
			head := w.Header()
			if head.Get("Content-Encoding") != c.coding || head.Get("Content-Type") != c.kind || !strings.Contains(head.Get("Cache-Control"), c.cache) || head.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%v", head)
			}
			policy := head.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("the policy has no %s: %s", want, policy)
				}
			}
			if strings.Contains(policy, "unsafe") || head.Get("Cross-Origin-Opener-Policy") != "same-origin" {
				t.Errorf("%v", head)
			}
		})
	}
}

// A browser that has a file is told so, and each form has a name of its own.
func TestKnownFilesAreNotSentAgain(t *testing.T) {
	h := small()
	seen := map[string]bool{}
	for _, accept := range []string{"", "br", "gzip"} {
		tag := serve(h, "GET", "/assets/a-1.js", map[string]string{"Accept-Encoding": accept}).Header().Get("ETag")
		if tag == "" || seen[tag] {
			t.Errorf("the tag of %q is %q", accept, tag)
		}
		seen[tag] = true
		if w := serve(h, "GET", "/assets/a-1.js", map[string]string{"Accept-Encoding": accept, "If-None-Match": tag}); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// What is in the program keeps to its own policy: no script or style in the page, nothing from elsewhere.
func TestBuiltPage(t *testing.T) {
	w := serve(Handler(none), "GET", "/", nil)
	page := w.Body.String()
	if w.Code != 200 || !strings.HasPrefix(strings.ToLower(page), "<!doctype html>") {
		t.Fatalf("%d %s", w.Code, page)
	}
	for _, bad := range []string{"<style", " style=", "onclick=", "onload=", "http://", "https://", "<script>"} {
		if strings.Contains(strings.ToLower(page), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}
