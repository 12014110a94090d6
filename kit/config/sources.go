package config

import (
	"cmp"
	"fmt"
	"reflect"
	"strings"
	"text/tabwriter"

	"github.com/shallot-net/shallot/kit/fault"
)

var envReplacer = strings.NewReplacer(".", "_", "-", "_")

func envPrefix(process string) string {
	return "SHALLOT_" + strings.ToUpper(envReplacer.Replace(process)) + "_"
}

func envName(process, key string) string {
	return envPrefix(process) + strings.ToUpper(envReplacer.Replace(key))
}

// parseEnv takes the variables with this process's prefix.
func (l *loader) parseEnv() (values map[string]any, file string, err error) {
	byName := map[string]string{}
	var names []string
	for _, f := range l.fields {
		n := envName(l.process, f.key)
		byName[n] = f.key
		names = append(names, n)
	}
	out := map[string]any{}
	for _, kv := range l.environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix(l.process)) {
			continue
		}
		if name == envName(l.process, "config") {
			file = value
			continue
		}
		key, ok := byName[name]
		if !ok {
			return nil, "", l.unknown("variable", name, "the environment", names)
		}
		out[key] = value
	}
	return out, file, nil
}

// parseFlags takes --key value, --key=value and, for booleans, --key. A dash in a key may stand for "_".
func (l *loader) parseFlags(args []string) (flags map[string]any, file string, err error) {
	flags = map[string]any{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, isFlag := strings.CutPrefix(arg, "--")
		if arg == "-h" || name == "help" && isFlag {
			return nil, "", l.help()
		}
		if isFlag && name == "health" && l.common != nil {
			l.health = true
			continue
		}
		if !isFlag || name == "" {
			if !l.allowArgs {
				return nil, "", fault.InvalidArgument("CONFIG_UNKNOWN", "unexpected argument %q for %s: values are given as --key value; --help lists the keys", arg, l.process)
			}
			if name == "" && isFlag {
				l.loaded.Args = append(l.loaded.Args, args...)
				return flags, file, nil
			}
			l.loaded.Args = append(l.loaded.Args, arg)
			continue
		}
		name, value, has := strings.Cut(name, "=")
		key := strings.ReplaceAll(name, "-", "_")
		if key != "config" && !l.known(key) {
			return nil, "", l.unknown("flag", "--"+name, "the command line", l.flagNames())
		}
		if !has && l.isBool(key) && (len(args) == 0 || args[0] != "true" && args[0] != "false") {
			value, has = "true", true
		}
		if !has {
			if len(args) == 0 {
				return nil, "", fault.InvalidArgument("CONFIG_INVALID", "flag --%s needs a value", name)
			}
			value, args = args[0], args[1:]
		}
		if key == "config" {
			file = value
			continue
		}
		flags[key] = value
	}
	return flags, file, nil
}

func (l *loader) flagNames() []string {
	names := []string{"--config", "--help"}
	if l.common != nil {
		names = append(names, "--health", "--version")
	}
	for _, k := range l.keys() {
		names = append(names, "--"+k)
	}
	return names
}

func (l *loader) isBool(key string) bool {
	for _, f := range l.fields {
		if f.key == key {
			return f.value.Kind() == reflect.Bool
		}
	}
	return false
}

func (l *loader) help() error {
	fmt.Fprintf(l.stdout, "shallot-%s: %s.\n\nEach value comes from a flag, else the environment, else the configuration file, else its default.\n\n", l.process, cmp.Or(l.does, "a process of Shallot's"))
	w := tabwriter.NewWriter(l.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "FLAG\tDEFAULT\tENVIRONMENT\tWHAT IT IS")
	fmt.Fprintf(w, "--config FILE\t\t%s\tYAML with these keys, or a section %q of them; else that section of HOME/config.yaml\n", envName(l.process, "config"), l.process)
	if l.common != nil {
		fmt.Fprintf(w, "--health\t\t\task the process that runs with these settings whether it is ready, and end with 0 when it is\n")
		fmt.Fprintf(w, "--version\t\t\tprint the version; it stands alone\n")
	}
	for _, f := range l.fields {
		fmt.Fprintf(w, "--%s\t%s\t%s\t%s\n", f.key, f.show(), envName(l.process, f.key), f.help)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return ErrHelp
}
