// Command reference writes pages about the shallot command and the processes of a node, out of what they say of themselves: one page of Markdown, manual pages, and the scripts by which
// shells complete the command's words. Run by `make reference` and `make release`, in cli/.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/shallot-net/shallot/cli/internal/command"
)

func main() {
	var w wanted
	flag.StringVar(&w.markdown, "markdown", "", "the `FILE` of the page of all commands")
	flag.StringVar(&w.man, "man", "", "the `FOLDER` for manual pages, one a command")
	flag.StringVar(&w.programs, "programs", "", "the `FOLDER` with the processes of a node, as they run on this machine: they get manual pages, too")
	flag.StringVar(&w.completions, "completions", "", "the `FOLDER` for share/bash-completion and its like")
	flag.StringVar(&w.version, "version", "", "the version that manual pages name")
	flag.Parse()
	err := w.write(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

// wanted is what to write; what is empty is left out.
type wanted struct{ markdown, man, programs, completions, version string }

func (w wanted) write(ctx context.Context) error {
	if w.markdown == "" && w.man == "" && w.completions == "" {
		return errors.New("say what to write: reference -markdown FILE, -man FOLDER or -completions FOLDER")
	}
	root := command.Tree()
	prepare(root)
	var errs []error
	if w.markdown != "" {
		errs = append(errs, put(w.markdown, markdown(root)))
	}
	if w.man != "" {
		errs = append(errs, manual(root, w.man, w.version))
	}
	if w.man != "" && w.programs != "" {
		errs = append(errs, pages(ctx, w.programs, w.man, w.version))
	}
	if w.completions != "" {
		errs = append(errs, completions(root, w.completions))
	}
	return errors.Join(errs...)
}

// prepare makes help flags, which cobra makes when a command runs, and leaves no trace of the day.
func prepare(c *cobra.Command) {
	c.DisableAutoGenTag = true
	c.InitDefaultHelpFlag()
	for _, sub := range c.Commands() {
		prepare(sub)
	}
}

// each calls fn for a command and all below it, in the order of their names.
func each(c *cobra.Command, fn func(*cobra.Command)) {
	fn(c)
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			each(sub, fn)
		}
	}
}

// markdown is one page with a chapter a command.
func markdown(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString("# The shallot command\n\nEvery command with its flags, as `shallot COMMAND --help` tells of it. Written by `make reference`: change the texts in `cli/internal/command`.\n\n")
	each(root, func(c *cobra.Command) {
		fmt.Fprintf(&b, "- [%s](#%s): %s\n", c.CommandPath(), anchor(c), c.Short)
	})
	each(root, func(c *cobra.Command) { chapter(&b, c) })
	fmt.Fprintf(&b, "\n## Flags of every command\n\n```text\n%s```\n", root.PersistentFlags().FlagUsagesWrapped(100))
	return b.Bytes()
}

func anchor(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

func chapter(b *bytes.Buffer, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", c.CommandPath(), c.Short)
	if c.Long != "" {
		fmt.Fprintf(b, "\n```text\n%s\n```\n", strings.TrimSpace(c.Long))
	}
	if c.Runnable() && !c.HasSubCommands() && !c.IsAdditionalHelpTopicCommand() {
		fmt.Fprintf(b, "\n```text\n%s\n```\n", c.UseLine())
	}
	if c.HasExample() {
		fmt.Fprintf(b, "\n```sh\n%s\n```\n", unindent(c.Example))
	}
	if c.HasAvailableLocalFlags() && c.HasParent() {
		fmt.Fprintf(b, "\n```text\n%s```\n", c.LocalFlags().FlagUsagesWrapped(100))
	}
}

func unindent(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n "), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}

// manual writes shallot.1, shallot-run.1, shallot-run-wasm.1, … They bear the moment of SOURCE_DATE_EPOCH, so that one commit has one set of them.
func manual(root *cobra.Command, dir, version string) error {
	day, err := moment()
	if err != nil {
		return err
	}
	var errs []error
	each(root, func(c *cobra.Command) {
		// As it is, a text would be filled, its lists and tables with it: indented it is what Markdown takes for a listing.
		if c.Long != "" {
			c.Long = "    " + strings.ReplaceAll(strings.TrimSpace(c.Long), "\n", "\n    ")
		}
		var b bytes.Buffer
		errs = append(errs, doc.GenMan(c, &doc.GenManHeader{Section: "1", Date: &day, Source: "shallot " + version, Manual: "Shallot"}, &b),
			put(filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"), b.Bytes()))
	})
	return errors.Join(errs...)
}

// moment is when the pages are of, in UTC.
func moment() (time.Time, error) {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("set SOURCE_DATE_EPOCH to the seconds since 1970 that manual pages bear: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// completions writes to the places below share/ where shells look.
func completions(root *cobra.Command, dir string) error {
	for path, generate := range map[string]func(io.Writer) error{
		"bash-completion/completions/shallot":    func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"zsh/site-functions/_shallot":            root.GenZshCompletion,
		"fish/vendor_completions.d/shallot.fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
	} {
		var b bytes.Buffer
		if err := generate(&b); err != nil {
			return err
		}
		if err := put(filepath.Join(dir, path), b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func put(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // for everybody
		return err
	}
	return os.WriteFile(path, data, 0o644) //nolint:gosec // for everybody
}
