package command

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	usualWidth    = 80  // columns, where nobody knows better
	widestHelp    = 100 // longer lines are hard to read
	narrowestHelp = 40
)

// width is how wide help may be: the terminal's, within reason.
func (a *app) width() int {
	if f, ok := a.Stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			return max(narrowestHelp, min(w, widestHelp))
		}
	}
	return usualWidth
}

// fitHelp breaks the lines of all commands' help at a width. Cobra's templates could be told so as well, and would make the program a quarter larger: they call
// methods by their names, so that the linker keeps all.
func fitHelp(root *cobra.Command, width int) {
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := io.WriteString(cmd.OutOrStderr(), usageText(cmd, width))
		return err
	})
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		out := fit(cmp.Or(cmd.Long, cmd.Short), width) + "\n\n"
		if cmd.Runnable() || cmd.HasSubCommands() {
			out += usageText(cmd, width)
		}
		_, _ = io.WriteString(cmd.OutOrStdout(), out)
	})
}

// usageText is what cobra says of a command's use.
func usageText(cmd *cobra.Command, width int) string {
	var b strings.Builder
	section := func(title, body string) {
		if body = strings.TrimRight(body, " \n"); body != "" {
			if b.Len() > 0 {
				b.WriteString("\n\n")
			}
			if title != "" {
				b.WriteString(title + "\n")
			}
			b.WriteString(body)
		}
	}
	var lines []string
	if cmd.Runnable() {
		lines = append(lines, "  "+cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		lines = append(lines, "  "+cmd.CommandPath()+" [command]")
	}
	section("Usage:", strings.Join(lines, "\n"))
	if len(cmd.Aliases) > 0 {
		section("Aliases:", "  "+cmd.NameAndAliases())
	}
	section("Examples:", cmd.Example)
	if cmd.HasAvailableSubCommands() {
		others := "Commands:"
		for _, g := range cmd.Groups() {
			section(g.Title, subcommands(cmd, g.ID, width))
			others = "Additional Commands:"
		}
		section(others, subcommands(cmd, "", width))
	}
	section("Flags:", cmd.LocalFlags().FlagUsagesWrapped(width))
	section("Global Flags:", cmd.InheritedFlags().FlagUsagesWrapped(width))
	var topics strings.Builder
	for _, c := range cmd.Commands() {
		if c.IsAdditionalHelpTopicCommand() {
			fmt.Fprintf(&topics, "  %s  %s\n", c.CommandPath(), c.Short)
		}
	}
	section("Additional help topics:", topics.String())
	if cmd.HasAvailableSubCommands() {
		section("", fit(fmt.Sprintf("Use \"%s [command] --help\" for more information about a command.", cmd.CommandPath()), width))
	}
	return b.String() + "\n"
}

// subcommands are those of a group, with what each is for.
func subcommands(cmd *cobra.Command, group string, width int) string {
	var b strings.Builder
	for _, c := range cmd.Commands() {
		if c.GroupID == group && (c.IsAvailableCommand() || c.Name() == "help") {
			name := fmt.Sprintf("  %-*s ", c.NamePadding(), c.Name())
			said := strings.Split(fit(c.Short, max(width-len(name), narrowestHelp/2)), "\n")
			b.WriteString(name + strings.Join(said, "\n"+strings.Repeat(" ", len(name))) + "\n")
		}
	}
	return b.String()
}

// fit breaks paragraphs anew. Lines that are indented stay as they are.
func fit(s string, width int) string {
	var out, paragraph []string
	flush := func() {
		if len(paragraph) > 0 {
			for line := range strings.Lines(text.WrapSoft(strings.Join(paragraph, " "), width)) {
				out = append(out, strings.TrimRight(line, " \n"))
			}
			paragraph = nil
		}
	}
	for line := range strings.Lines(strings.TrimSpace(s)) {
		line = strings.TrimRight(line, " \n")
		if line == "" || strings.HasPrefix(line, " ") {
			flush()
			out = append(out, line)
			continue
		}
		paragraph = append(paragraph, line)
	}
	flush()
	return strings.Join(out, "\n")
}
