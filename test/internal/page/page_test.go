package page

import (
	"os"
	"strings"
	"testing"
	"time"
)

const sample = "# A page\n\n## First\n\n```sh\necho one   two\n```\n```text\none two\n…\n```\n\nwords\n\n```sh terminal=1\nsleep 100\n```\n\n## Second\n\n```sh needs=root\napt-get install x\n```\n"

func TestParse(t *testing.T) {
	got, err := parse("p.md", sample)
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	if b := got[0]; b.Line != 5 || b.Section != "First" || b.Commands != "echo one   two\n" || len(b.Prints) != 1 || b.Prints[0] != "one two" {
		t.Errorf("%+v", b)
	}
	if b := got[1]; b.Terminal != "1" || b.Prints != nil {
		t.Errorf("%+v", b)
	}
	if b := got[2]; b.Needs != "root" || b.Section != "Second" {
		t.Errorf("%+v", b)
	}
	for text, want := range map[string]string{
		"```go\nx\n```\n":                              "commands are sh",
		"```sh needs=luck\nx\n```\n":                   "needs=luck",
		"```sh\nx\n":                                   "has no end",
		"```text\nx\n```\n":                            "behind no commands",
		"```sh\nx\n```\nA word.\n```text\nx\n```\n":    "behind no commands",
		"```sh\nx\n```\n```text\na\n```\n```text\n```": "behind no commands",
	} {
		if _, err := parse("p.md", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMissing(t *testing.T) {
	b := Block{Prints: []string{"ID  STATE", "… COMPLETED … 3ms"}}
	if line, is := b.missing("ID     STATE\n5 COMPLETED at once, 3ms\n"); is {
		t.Errorf("%q is missing", line)
	}
	if _, is := b.missing("ID STATE\n5 COMPLETED at once\n3ms\n"); !is {
		t.Error("a line goes over two")
	}
	if line, is := b.missing("STATE ID\n"); !is || line != "ID  STATE" {
		t.Errorf("%q", line)
	}
}

func session(t *testing.T) *Session {
	dir := t.TempDir()
	return New(t, Config{Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, Wait: time.Minute})
}

func TestATerminalIsOneShell(t *testing.T) {
	s := session(t)
	blocks, err := parse("p.md", "```sh\nmkdir a && cd a\nx=1; export Y=2\nsleep 1000 &\n```\n\n```sh\necho $(basename $PWD) $x $Y\nkill %1\n```\n```text\na 1 2\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	s.Run(t, blocks)
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestACommandThatStays(t *testing.T) {
	s := session(t)
	blocks, err := parse("p.md", "```sh terminal=1\ntrap 'echo stopped; trap - EXIT' EXIT\nsh -c 'trap \"echo bye; exit 3\" INT; echo ready; while :; do sleep 0.1; done'\n```\n```text\nready\n```\n\n```sh terminal=1\necho again; cat /dev/zero >/dev/null\n```\n```text\nagain\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	s.Run(t, blocks)
	if left := s.running(); len(left) != 1 || !strings.Contains(left[0], "/dev/zero") {
		t.Errorf("after Ctrl-C there runs %q", left)
	}
	if out := s.terminals["1"].printed(0); !strings.Contains(out, "bye") {
		t.Errorf("printed %q", out)
	}
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhatFails(t *testing.T) {
	for text, want := range map[string]string{
		"```sh\nfalse\n```\n":                                "a command failed: exit status 1",
		"```sh\nfalse | cat\n```\n":                          "a command failed",
		"```sh\necho $never\n```\n":                          "a command failed",
		"```sh\necho b\n```\n```text\na\n```\n":              `it does not print "a"`,
		"```sh terminal=1\ntrue\n```\n```text\nready\n```\n": "did not stay",
	} {
		s := session(t)
		blocks, err := parse("p.md", text)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := s.block(t.Context(), blocks[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, printed %q", text, err, out)
		}
	}
}

func TestWhatAPageLeavesIsSaidAndKilled(t *testing.T) {
	dir := t.TempDir()
	var s *Session
	t.Run("page", func(t *testing.T) {
		s = New(t, Config{Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, Wait: time.Minute})
		blocks, err := parse("p.md", "```sh\nsetsid sleep 4321 &\n```\n")
		if err != nil {
			t.Fatal(err)
		}
		s.Run(t, blocks)
		s.Wait = time.Second
		if err := s.End(t.Context()); err == nil || !strings.Contains(err.Error(), "sleep 4321") {
			t.Errorf("what runs still: %v", err)
		}
	})
	if left := s.running(); len(left) != 0 {
		t.Errorf("there runs still %q", left)
	}
}
