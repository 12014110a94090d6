package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

func TestContentOfDirectories(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, out := filepath.Join(t.TempDir(), "site"), filepath.Join(t.TempDir(), "out")
	files := map[string]string{"index.html": "hello", "docs/a/b.txt": strings.Repeat("b", 600_000), "docs/empty": "", ".git/x": "hidden"}
	for name, text := range files {
		plant(t, filepath.Join(dir, name), text)
	}
	plant(t, filepath.Join(dir, "none", "at all")+"/", "")
	r := w.run("content", "put", dir)
	r.want(t, 0, r.stdout, "left out (1): --hidden")
	cid := strings.TrimSpace(r.stdout)
	w.node.Break("ListContent", 1)
	w.node.Break("GetContent", 1)
	w.run("content", "get", cid, "--output-dir", out).want(t, 0, "", "3 files")
	delete(files, ".git/x")
	for name, text := range files {
		if b, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(b) != text {
			t.Errorf("%s has %d bytes, %v", name, len(b), err)
		}
	}
	if info, err := os.Stat(filepath.Join(out, "none", "at all")); err != nil || !info.IsDir() {
		t.Error("a directory without files is gone", err)
	}
	w.run("content", "get", "/ipfs/"+cid+"/index.html").want(t, 0, "hello", "")
	w.run("content", "get", cid+"/docs/", "--output-dir", out+"2").want(t, 0, "", "2 files")
	if b, err := os.ReadFile(filepath.Join(out+"2", "a", "b.txt")); err != nil || len(b) != 600_000 {
		t.Error(len(b), err)
	}
	w.run("content", "get", cid).want(t, exitState, "", "--output-dir DIR fetches it")
	w.run("content", "get", cid+"/nothing").want(t, exitNotFound, "", "there is no")
	w.run("content", "get", cid, "--output-dir", out).want(t, exitUsage, "", "is not empty")
	if r := w.run("content", "ls", cid+"/docs"); r.code != 0 || !strings.Contains(r.stdout, "empty") || strings.Contains(r.stdout, "b.txt") {
		t.Errorf("%+v", r)
	}
	if v := w.run("content", "ls", cid, "--output", "json").json(t); len(v["entries"].([]any)) != 3 {
		t.Error(v)
	}
	again := strings.TrimSpace(w.run("content", "put", dir, "--hidden", "--output", "json").stdout)
	if strings.Contains(again, cid) {
		t.Errorf("with hidden files it is %s, too", again)
	}
	if err := os.Symlink("index.html", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	w.run("content", "put", dir).want(t, exitUsage, "", "(a link)")
}

// In anonymous mode what is put stays here, which is said, and what is elsewhere is asked for where it is said to be.
func TestContentOfAnAnonymousNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "site")
	plant(t, filepath.Join(dir, "index.html"), "hello")
	if r := w.run("content", "put", dir); r.code != 0 || r.stderr != "" {
		t.Errorf("in open mode it says %q", r.stderr)
	}
	w.veil()
	r := w.run("content", "put", dir)
	r.want(t, 0, r.stdout, "kept on this node alone")
	cid := strings.TrimSpace(r.stdout)
	for _, args := range [][]string{{cid + "/index.html"}, {cid, "--output-dir", filepath.Join(t.TempDir(), "out")}} {
		r := w.run(append([]string{"content", "get", "--from", aliasB, "--from", aliasA}, args...)...)
		r.want(t, 0, r.stdout, "")
		if got := strings.Join(w.node.Asked(), " "); got != aliasB+" "+aliasA {
			t.Errorf("%v: asked are %q", args, got)
		}
	}
	w.run("content", "get", cid+"/index.html").want(t, 0, "hello", "")
	if got := w.node.Asked(); len(got) > 0 {
		t.Errorf("asked are %q", got)
	}
}

func TestHostileContentWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.node.AddContent([]byte("good"))
	file := func(path string, size uint64) *brokerv1.DirectoryEntry {
		return &brokerv1.DirectoryEntry{Path: path, Kind: "raw", Size: size, Cid: good}
	}
	for says, bad := range map[string]*brokerv1.DirectoryEntry{
		"leads out":                file("../x", 4),
		"is absolute":              file("/tmp/x", 4),
		"is not clean":             file("a/../x", 4),
		"a control character":      file("a\x1b", 4),
		"is there twice":           file("good", 4),
		"a directory for":          file("good/x", 4),
		"more bytes than":          file("z", 3),
		"bytes of 5 are missing":   file("z", 5),
		"cannot write":             file("z", 1<<63+5),
		"neither a file":           {Path: "l", Kind: "other", Cid: good},
		`cannot be used: it leads`: {Path: "../d", Kind: "directory"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		w.node.AddTree("bafytree", file("good", 4), bad)
		if r := w.run("content", "get", "bafytree", "--output-dir", out); r.code == 0 || !strings.Contains(r.stderr, says) {
			t.Errorf("%+v instead of %q", r, says)
		}
		if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", says, left, err)
		}
	}
}

func TestContentLsShowsWhoKeepsWhat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, owner := range []string{"user", "task:1", "task:2", "payload:3", "share:4"} {
		cid := w.node.AddContent([]byte(strings.Repeat("x", 2000) + owner))
		w.node.Pin(&brokerv1.Pin{Cid: cid, Owner: owner, ExpiresAt: timestamppb.New(noon.Add(3 * time.Hour))})
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "user"}, {[]string{"--all"}, "user task:1 task:2 payload:3 share:4"}, {[]string{"--owner", "task:"}, "task:1 task:2"}, {[]string{"--owner", "task:2"}, "task:2"},
	} {
		v := w.run(append([]string{"content", "ls", "--output", "json"}, c.args...)...).json(t)
		var got []string
		for _, p := range v["pins"].([]any) {
			got = append(got, p.(map[string]any)["owner"].(string))
			if p.(map[string]any)["size"].(float64) < 2000 {
				t.Errorf("%v has no size", p)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v lists %v", c.args, got)
		}
	}
	if r := w.run("content", "ls", "--all"); !strings.Contains(r.stdout, "payload:3") || !strings.Contains(r.stdout, "2.0 KiB") || !strings.Contains(r.stdout, "in 3h") {
		t.Error(r.stdout)
	}
	w.run("content", "ls", "--all", "--owner", "user").want(t, exitUsage, "", "--owner and --all exclude each other")
	w.run("content", "ls", "--owner", "task:none").want(t, 0, "", `nothing is pinned for "task:none"`)
	w.run("content", "ls", "--all", "bafytree").want(t, exitUsage, "", "are for pins")
}
