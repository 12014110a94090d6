package component_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/treepath"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

func treeSpec(files map[string]string) *taskv1.TaskSpec {
	var parts []*taskv1.InputFile
	for name, text := range files {
		parts = append(parts, &taskv1.InputFile{Path: "input:" + name, Content: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: []byte(text)}}})
	}
	return scriptSpec(step{Name: "tree", Mirror: true}, parts...)
}

// TestTreeThereAndBack: a directory is its files, whatever way each of them takes, and again after restarts.
func TestTreeThereAndBack(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 2)), n.addConsumer(nil)
	large := string(shared(100_000))
	files := map[string]string{"a": "a", "b/c": "", "b/d/.e": large, "b/d/same": large, "name with ü": "x"}
	for i := range 200 {
		files[fmt.Sprintf("many/%d/%d", i%7, i)] = strings.Repeat("y", i*20)
	}
	for range 2 {
		id := c.submit(treeSpec(files), p)
		task := c.await(id, "COMPLETED")
		if got := len(task.GetResult().GetFiles()); got != len(files) {
			t.Fatalf("%d files came back, of %d", got, len(files))
		}
		c.restart()
		p.restart()
		for name, text := range files {
			if c.result(id, "output:"+name) != text {
				t.Errorf("%s came back otherwise", name)
			}
		}
	}
}

// TestTreesThatCannotBe are refused before anything is sent.
func TestTreesThatCannotBe(t *testing.T) {
	t.Parallel()
	n, s := newNetwork(t), newScript()
	p, c := n.addProvider(withScript(s, 1)), n.addConsumer(nil)
	many := map[string]string{}
	for i := range treepath.MaxFiles + 1 {
		many[fmt.Sprintf("d/%d", i)] = ""
	}
	for says, files := range map[string]map[string]string{
		"a directory for":          {"a/b": "", "a": ""},
		"1001 files":               many,
		"leads out":                {"../a": ""},
		"absolute":                 {"/etc/passwd": ""},
		"control character":        {"a\nb": ""},
		"63 are possible":          {strings.Repeat("d/", 64) + "f": ""},
		"a name may have 255":      {strings.Repeat("n", 256): ""},
		"a path may have 1024":     {strings.Repeat("n/", 600) + "n": ""},
		`no slash at its end`:      {"a/": ""},
		`cannot be used: it is em`: {"": ""},
	} {
		if got := c.create(app.NewID(), treeSpec(files), p).GetFault().GetMessage(); !strings.Contains(got, says) {
			t.Errorf("%q instead of %q", got, says)
		}
	}
	if s.ran("tree") != 0 {
		t.Error("one of them ran")
	}
}
