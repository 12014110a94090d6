package supervisor

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/home"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

func itoa(n int) string { return strconv.Itoa(n) }

func mustProbe(t *testing.T, h home.Home) *nodev1.Node {
	t.Helper()
	p, err := newProbe(h)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	n, err := p.node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestProcessLogKeepsLinesAndLastWords(t *testing.T) {
	h, err := home.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var mirrored []string
	l := openLog(h, "task", func(line string) { mirrored = append(mirrored, line) })
	defer l.Close()
	for _, part := range []string{"one\ntw", "o\n", "\n", "thr\xffee"} {
		if n, err := l.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	if last := l.takeLast(); last != "thr\uFFFDee" {
		t.Errorf("last words are %q", last)
	}
	if last := l.takeLast(); last != "" {
		t.Errorf("they were said twice: %q", last)
	}
	if want := []string{"one", "two", "thr\uFFFDee"}; !slices.Equal(mirrored, want) {
		t.Errorf("mirrored %q, want %q", mirrored, want)
	}
	if _, err := l.Write([]byte(strings.Repeat("x", 3*maxLine) + "\n")); err != nil {
		t.Fatal(err)
	}
	if last := l.takeLast(); len(last) != maxLine {
		t.Errorf("a line of %d bytes was kept", len(last))
	}
	data, err := os.ReadFile(LogFile(h, "task"))
	if err != nil || !strings.HasPrefix(string(data), "one\ntwo\n\nthr\xffeexxx") {
		t.Errorf("the file holds %.30q, %v", data, err)
	}
}

func TestWhatANodeStillWaitsFor(t *testing.T) {
	n := &nodev1.Node{PeerId: "p", Processes: []*nodev1.Process{{Name: "task", State: "not_serving", Detail: "its store is locked"}, {Name: "node", State: "serving"}}}
	if got := missing(n); got != "task is not serving (its store is locked)" {
		t.Errorf("got %q", got)
	}
	n.Ready = true
	if got := missing(n); got != "" {
		t.Errorf("got %q", got)
	}
	if got := joinable([]string{"/ip4/10.0.0.1/tcp/1/p2p/x", "/ip4/127.0.0.1/tcp/1/p2p/x", "/ip4/127.0.0.1/tcp/1"}); !slices.Equal(got, []string{"/ip4/127.0.0.1/tcp/1/p2p/x"}) {
		t.Errorf("joinable is %v", got)
	}
}

func TestLastWords(t *testing.T) {
	for line, want := range map[string]string{
		"":                                   "",
		"panic: x":                           "panic: x",
		"{not json":                          "{not json",
		`{"level":"INFO","msg":"broker up"}`: "",
		`{"level":"ERROR","msg":"cannot open the store","error":"disk full"}`: "cannot open the store: disk full",
	} {
		if got := lastWords(line); got != want {
			t.Errorf("last words of %s are %q", line, got)
		}
	}
}
