package command

import (
	"errors"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shallot-net/shallot/kit/fault"
)

// suggestion is `did you mean "x"?` after a separator, or nothing.
func suggestion(word string, known []string, separator string) string {
	if s := fault.Suggest(word, known); s != "" {
		return separator + s
	}
	return ""
}

// group makes a command that only holds others: alone it prints its help, with anything else it says what is meant.
func group(c *cobra.Command) *cobra.Command {
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	c.Args = cobra.ArbitraryArgs
	return c
}

func unknownCommand(cmd *cobra.Command, word string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
			names = append(names, sub.Aliases...)
		}
	}
	return usage("%s has no command %q%s", cmd.CommandPath(), word, suggestion(word, names, "; "))
}

// flagError adds a near miss to what pflag says.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usage("%s", strings.TrimPrefix(err.Error(), "flag "))
	}
	name := unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		return usage("unknown flag -%s", name)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, "--"+f.Name)
		}
	})
	return usage("unknown flag --%s%s", name, suggestion("--"+name, names, "; "))
}

// exclusive refuses flags together, in words of its own: cobra's name no way out.
func exclusive(cmd *cobra.Command, names ...string) {
	cmd.MarkFlagsMutuallyExclusive(names...) // for completion
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		var given []string
		for _, name := range names {
			if cmd.Flags().Changed(name) {
				given = append(given, "--"+name)
			}
		}
		if len(given) > 1 {
			return usage("%s exclude each other: give one of them", strings.Join(given, " and "))
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

// exactly demands the named arguments and no others.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage("%s is missing: %s", names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return usage("unexpected argument %q: %s", args[len(names)], cmd.UseLine())
		}
		return nil
	}
}

var negative = regexp.MustCompile(`^-[0-9.]`)

// negativeNumbers lets `run sum -1 2` mean what it says: it moves what looks like a negative number, and all other
// addends, behind "--".
func negativeNumbers(root *cobra.Command, args []string) []string {
	cmd, rest, err := root.Find(args)
	if err != nil || cmd.CommandPath() != root.Name()+" run sum" {
		return args
	}
	var flags, addends []string
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			addends = append(addends, rest...)
			rest = nil
		case negative.MatchString(arg) || !strings.HasPrefix(arg, "-") || arg == "-":
			addends = append(addends, arg)
		default:
			flags = append(flags, arg)
			if takesValue(cmd, arg) && len(rest) > 0 {
				flags = append(flags, rest[0])
				rest = rest[1:]
			}
		}
	}
	return append(append(append([]string{"run", "sum"}, flags...), "--"), addends...)
}

// takesValue tells whether the next argument belongs to this flag.
func takesValue(cmd *cobra.Command, arg string) bool {
	name, isLong := strings.CutPrefix(arg, "--")
	if strings.Contains(name, "=") {
		return false
	}
	var f *pflag.Flag
	if isLong {
		if f = cmd.Flags().Lookup(name); f == nil {
			f = cmd.InheritedFlags().Lookup(name)
		}
	} else if len(arg) == 2 {
		if f = cmd.Flags().ShorthandLookup(arg[1:]); f == nil {
			f = cmd.InheritedFlags().ShorthandLookup(arg[1:])
		}
	}
	return f != nil && f.NoOptDefVal == ""
}
