// Package docs runs docs/tutorial.md and docs/how-to/*.md, command by command, as somebody would who has just got the sources: with an empty home, before real nodes.
package docs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/anonymous"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/page"
)

const (
	top  = "../.."
	docs = top + "/docs"
	// url is where the tutorial clones from: here, git is told to take the sources that are tested.
	url = "https://github.com/shallot-net/shallot"
	// patience is for one block, on a machine that has much else to do; the first may compile everything.
	patience = 6 * time.Minute
)

// elsewhere are pages that another test runs: those about containers, in `make test-compose`.
var elsewhere = []string{"how-to/scale-a-node.md"}

// here are the pages of the tests below.
var here = []string{"tutorial.md", "how-to/offer-a-machine.md", "how-to/write-an-executor.md", "how-to/why-a-task-failed.md", "how-to/join-a-network.md", "how-to/behind-a-censor.md"}

func TestEveryPageIsRun(t *testing.T) {
	paths, err := filepath.Glob(docs + "/how-to/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, docs+"/tutorial.md") {
		name, err := filepath.Rel(docs, path)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(here, name) && !slices.Contains(elsewhere, name) {
			t.Errorf("nobody runs docs/%s: add it to a test", name)
		}
		if blocks, err := page.Read(path); err != nil || len(blocks) == 0 {
			t.Errorf("docs/%s has %d blocks of commands, %v", name, len(blocks), err)
		}
	}
}

func TestTutorial(t *testing.T) {
	anonymous.Need(t, "tor", "git", "make")
	t.Parallel()
	r := newReader(t)
	if err := page.Repository(top, filepath.Join(r.world, "sources")); err != nil {
		t.Fatal(err)
	}
	r.run(t, "tutorial.md", r.home)
}

func TestHowTos(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"how-to/offer-a-machine.md", "how-to/why-a-task-failed.md"} {
		t.Run(filepath.Base(name), func(t *testing.T) { newReader(t).after(t, name, nil) })
	}
	t.Run("write-an-executor.md", func(t *testing.T) {
		if out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import grpc").CombinedOutput(); err != nil {
			leaveOut(t, "there is no gRPC for /usr/bin/python3; to get it: apt-get install python3-grpcio. "+string(out))
		}
		newReader(t).after(t, "how-to/write-an-executor.md", nil)
	})
}

// leaveOut leaves a page out, with one line that says what would be needed; in CI it is there.
func leaveOut(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip("left out: " + why)
}

// reader is somebody with an empty home. Paths are short, since sockets are in it.
type reader struct {
	home  string
	world string // what is there without the reader
	env   []string
}

func newReader(t *testing.T) *reader {
	t.Helper()
	dir, err := os.MkdirTemp("", "doc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &reader{home: filepath.Join(dir, "h"), world: filepath.Join(dir, "w")}
	if err := errors.Join(os.Mkdir(r.home, 0o700), os.Mkdir(r.world, 0o700)); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(r.world, "gitconfig")
	text := "[url \"" + filepath.Join(r.world, "sources") + "\"]\n\tinsteadOf = " + url + "\n[safe]\n\tdirectory = *\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.env = []string{
		"HOME=" + r.home, "LANG=C.UTF-8", "GIT_CONFIG_GLOBAL=" + config, "GIT_CONFIG_NOSYSTEM=1",
		// What was compiled for the tests is not compiled again: the same flags, the same cache.
		"GOFLAGS=-trimpath",
	}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GOTOOLCHAIN"} {
		value, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		if err != nil {
			t.Fatalf("go env %s: %v", name, err)
		}
		r.env = append(r.env, name+"="+strings.TrimSpace(string(value)))
	}
	for _, name := range []string{"PATH", "CC", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"} {
		if value, ok := os.LookupEnv(name); ok {
			r.env = append(r.env, name+"="+value)
		}
	}
	return r
}

// after is a page that begins where the tutorial ends: in the sources' folder, with everything built. prepare adds to that folder what the page says its reader has.
func (r *reader) after(t *testing.T, name string, prepare func(sources string) error) {
	t.Helper()
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	sources := filepath.Join(r.home, "shallot")
	if err := page.Sources(top, sources); err != nil {
		t.Fatal(err)
	}
	if prepare == nil {
		prepare = func(sources string) error { return page.Built(bin, sources) }
	}
	if err := prepare(sources); err != nil {
		t.Fatal(err)
	}
	r.run(t, name, sources)
}

func (r *reader) run(t *testing.T, name, dir string) {
	t.Helper()
	blocks, err := page.Read(filepath.Join(docs, name))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	s := page.New(t, page.Config{Dir: dir, Env: r.env, Wait: patience, Rewrite: func(commands string) string {
		// The one port that a node of the machine's owner, or of a test beside this one, may have.
		return strings.ReplaceAll(commands, "/tcp/4001", "/tcp/0")
	}})
	s.Run(t, blocks)
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("the whole page: %v", time.Since(begin).Round(time.Second))
}
