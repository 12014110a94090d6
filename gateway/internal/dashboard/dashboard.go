// Package dashboard serves the pages for people: files that are part of the program. They hold no data of the node; all that they show comes over
// REST, which everybody can ask who may.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed all:dist
var built embed.FS

// policy lets the pages do what they need and nothing else: their own scripts and styles, calls of this gateway, and pictures that they made of bytes.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html"

// kinds are the files that there may be. What is none of them is not served, so that nothing is left to guess for a browser.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json",
	".webmanifest": "application/manifest+json", ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2", ".txt": "text/plain; charset=utf-8",
}

// codings are the forms that the build may have made beside a file, the smallest first.
var codings = []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// file is one of the built files.
type file struct {
	kind string
	// forms are its bytes by coding; "" is the file itself.
	forms map[string][]byte
	etag  string
	// hashed names change with their content, so that a browser never has to ask again.
	hashed bool
}

// Handler answers GET and HEAD of the built files, and leaves all else to otherwise.
func Handler(otherwise http.HandlerFunc) http.Handler {
	sub, err := fs.Sub(built, "dist")
	if err != nil {
		panic(err) // a name that is no path
	}
	return handler(sub, otherwise)
}

func handler(from fs.FS, otherwise http.HandlerFunc) http.Handler {
	files := load(from)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		if !ok || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
			otherwise(w, r)
			return
		}
		f.serve(w, r)
	})
}

// load reads all files into memory, by the path at which they are served.
func load(from fs.FS) map[string]file {
	files := map[string]file{}
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		kind, known := kinds[path.Ext(name)]
		if err != nil || d.IsDir() || !known {
			return err
		}
		b, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		f := file{kind: kind, forms: map[string][]byte{"": b}, etag: base64.RawURLEncoding.EncodeToString(sum[:12]), hashed: strings.HasPrefix(name, "assets/")}
		for _, c := range codings {
			if b, err := fs.ReadFile(from, name+c.suffix); err == nil {
				f.forms[c.name] = b
			}
		}
		at := "/" + name
		if name == "index.html" {
			at = "/"
		}
		files[at] = f
		return nil
	})
	if err != nil {
		panic(err) // the files are part of the program
	}
	return files
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "no-cache")
	if f.hashed {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	coding, body, etag := "", f.forms[""], f.etag
	for _, c := range codings {
		if b, ok := f.forms[c.name]; ok && accepts(r.Header.Values("Accept-Encoding"), c.name) {
			coding, body, etag = c.name, b, f.etag+"-"+c.name
			h.Set("Content-Encoding", c.name)
			break
		}
	}
	h.Set("ETag", `"`+etag+`"`)
	if coding != "" {
		r.Header.Del("Range") // of which bytes it would speak is not worth the question
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// accepts tells whether an Accept-Encoding has a coding and does not refuse it.
func accepts(header []string, coding string) bool {
	for _, part := range strings.Split(strings.Join(header, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), coding) {
			continue
		}
		q, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(params, " ", "")), "q=")
		weight, err := strconv.ParseFloat(q, 64)
		return !ok || (err == nil && weight > 0)
	}
	return false
}
