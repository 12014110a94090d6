package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/tor"
)

// options of a torrc; where shallot's own paths stand the value is left out.
func options(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '%' {
			continue
		}
		name, value, _ := strings.Cut(line, " ")
		words := strings.Fields(value)
		for i, w := range words {
			if strings.Contains(w, "/") {
				words[i] = "PATH"
			}
		}
		all[name] = strings.Join(words, " ")
	}
	return all
}

// TestTorIsSetAsOutsideOfContainers: what keeps a node's tor from showing where it is must not depend on how it was started.
func TestTorIsSetAsOutsideOfContainers(t *testing.T) {
	shipped, err := os.ReadFile(filepath.Join(deploy, "torrc"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := tor.ClientConfig{Dir: "/home/tor", RunDir: "/home/run"}.Torrc()
	if err != nil {
		t.Fatal(err)
	}
	got, want := options(string(shipped)), options(string(own))
	delete(got, "CookieAuthFile") // beside the socket, so that who has the one has the other
	if len(want) < 8 {
		t.Fatalf("shallot's own has only %v", want)
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, and outside of containers %q", name, got[name], value)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("only in containers: %v", got)
	}
}
