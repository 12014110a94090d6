package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/shallot-net/shallot/cli/internal/command"
)

func prepared() *cobra.Command {
	root := command.Tree()
	prepare(root)
	return root
}

func TestThePageIsCurrent(t *testing.T) {
	got, err := os.ReadFile("../../../docs/reference/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, markdown(prepared())) {
		t.Error("docs/reference/cli.md is not what the command says of itself: make reference, and commit it")
	}
}

func TestManualPages(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	if err := manual(prepared(), first, "1.2.3"); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("without a moment: %v", err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	for _, dir := range []string{first, second} {
		if err := manual(prepared(), dir, "1.2.3"); err != nil {
			t.Fatal(err)
		}
	}
	pages := 0
	each(prepared(), func(c *cobra.Command) {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		a, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second, name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s is another page each time, %v", name, err)
		}
		for _, want := range []string{".TH ", "Nov 2023", "shallot 1.2.3"} {
			if !strings.Contains(string(a), want) {
				t.Errorf("%s has no %q", name, want)
			}
		}
		pages++
	})
	if pages < 40 {
		t.Errorf("only %d pages", pages)
	}
}

func TestCompletionsAreWhereShellsLook(t *testing.T) {
	dir := t.TempDir()
	if err := completions(prepared(), dir); err != nil {
		t.Fatal(err)
	}
	for path, begins := range map[string]string{
		"bash-completion/completions/shallot": "# bash completion", "zsh/site-functions/_shallot": "#compdef shallot", "fish/vendor_completions.d/shallot.fish": "# fish completion",
	} {
		got, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil || !strings.HasPrefix(string(got), begins) {
			t.Errorf("%s: %v, %.40q", path, err, got)
		}
	}
}
