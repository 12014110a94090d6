package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"github.com/shallot-net/shallot/kit/fault"
)

// ErrHelp says that --help was asked for and has been printed.
var ErrHelp = errors.New("help was printed")

// HealthAsked is what Load returns in the end when --health was given: the caller is not to run, but to ask the process that runs with these
// settings whether it is ready.
type HealthAsked struct {
	Process string
	Listen  string // where that process answers, as kit/rpc takes it
	TLSDir  string // its credentials, for an answer off the Unix socket
}

func (h *HealthAsked) Error() string {
	return "--health was given: " + h.Process + " is to be asked, not started"
}

// maxFile bounds a configuration file; a larger one is a mistake.
const maxFile = 1 << 20

// Value is one key as it was loaded.
type Value struct {
	Key, Value, Help string
	Env              string // the variable that would set it
	Source           string // "default", "file PATH", "environment NAME", "flag --KEY"
	Secret           bool   // Value is *** where there is one
}

// Loaded tells where each value came from.
type Loaded struct {
	Process string
	File    string // "" when none was read
	Values  []Value
	Args    []string // with AllowArgs
	source  map[string]string
}

// Source says where a key's value came from.
func (l *Loaded) Source(key string) string {
	if s, ok := l.source[key]; ok {
		return s
	}
	return "default"
}

// Option changes where Load reads from and prints to.
type Option func(*loader)

// WithEnviron replaces os.Environ.
func WithEnviron(env []string) Option { return func(l *loader) { l.environ = env } }

// WithStdout replaces os.Stdout for --help.
func WithStdout(w io.Writer) Option { return func(l *loader) { l.stdout = w } }

// Does says what the process is for, a phrase that stands behind its name in --help and in its manual page: "keeps tasks".
func Does(phrase string) Option { return func(l *loader) { l.does = phrase } }

// AllowArgs collects arguments that are no flags, and all after "--", in Loaded.Args; without it they are errors.
func AllowArgs() Option { return func(l *loader) { l.allowArgs = true } }

type loader struct {
	process   string
	does      string
	fields    []field
	common    *Common
	environ   []string
	stdout    io.Writer
	allowArgs bool
	health    bool
	k         *koanf.Koanf
	loaded    *Loaded
}

// Load fills target, a pointer to a struct that holds the defaults. args are without the program's name.
// A target with Validate() error is asked at the end. --help and, of a process with Common, --health end in an error of their own (ErrHelp,
// HealthAsked). On an error target is half filled: do not use it.
func Load(process string, target any, args []string, opts ...Option) (*Loaded, error) {
	l := &loader{process: process, environ: os.Environ(), stdout: os.Stdout, k: koanf.New("."),
		loaded: &Loaded{Process: process, source: map[string]string{}}}
	for _, o := range opts {
		o(l)
	}
	if c, ok := target.(interface{ common() *Common }); ok {
		l.common = c.common()
		l.common.defaults()
	}
	l.fields = fields(reflect.ValueOf(target).Elem(), "")
	if err := l.load(args); err != nil {
		return nil, err
	}
	if l.common != nil {
		if err := l.common.finish(process, l.loaded); err != nil {
			return nil, err
		}
		if err := l.quiet(); err != nil {
			return nil, err
		}
	}
	if v, ok := target.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return nil, fault.InvalidArgument("CONFIG_INVALID", "configuration of %s: %v", process, err).Because(err)
		}
	}
	if l.health {
		return nil, &HealthAsked{Process: process, Listen: l.common.Listen, TLSDir: l.common.TLS.Dir}
	}
	for _, f := range l.fields {
		l.loaded.Values = append(l.loaded.Values, Value{f.key, f.show(), f.help, envName(process, f.key), l.loaded.Source(f.key), f.secret})
	}
	return l.loaded, nil
}

// quiet refuses a collector elsewhere for whatever process has a mode, and that is the anonymous one: nothing of such a node looks a name up or dials but through Tor.
func (l *loader) quiet() error {
	i := slices.IndexFunc(l.fields, func(f field) bool { return f.key == "mode" })
	e := l.common.Trace.Endpoint
	if i < 0 || l.fields[i].show() != "anonymous" || e == "" || strings.HasPrefix(e, "unix:") {
		return nil
	}
	return fault.InvalidArgument("CONFIG_INVALID", "trace.endpoint is %q (from %s): a process of an anonymous node calls nobody but by Unix sockets; give unix:/path of a collector on this machine", e, l.loaded.Source("trace.endpoint"))
}

func (l *loader) load(args []string) error {
	flags, file, err := l.parseFlags(args)
	if err != nil {
		return err
	}
	env, envFile, err := l.parseEnv()
	if err != nil {
		return err
	}
	if file == "" {
		file = envFile
	}
	if err := l.loadFile(file, l.homeOf(flags, env)); err != nil {
		return err
	}
	if err := l.merge(env, func(key string) string { return "environment " + envName(l.process, key) }); err != nil {
		return err
	}
	if err := l.merge(flags, func(key string) string { return "flag --" + key }); err != nil {
		return err
	}
	for _, f := range l.fields {
		raw := l.k.Get(f.key)
		if raw == nil {
			continue
		}
		if err := f.set(raw); err != nil {
			shown := text(raw)
			if f.secret {
				shown = "***"
			}
			return fault.InvalidArgument("CONFIG_INVALID", "%s is %q (from %s): %v", f.key, shown, l.loaded.Source(f.key), err)
		}
	}
	return nil
}

// merge puts one source over those before it.
func (l *loader) merge(values map[string]any, source func(key string) string) error {
	if err := l.k.Load(confmap.Provider(values, "."), nil); err != nil {
		return fmt.Errorf("merge configuration: %w", err)
	}
	for key := range values {
		l.loaded.source[key] = source(key)
	}
	return nil
}

// homeOf is needed before anything is merged: the file may be in it.
func (l *loader) homeOf(flags, env map[string]any) string {
	for _, m := range []map[string]any{flags, env} {
		if h, ok := m["home"].(string); ok {
			return h
		}
	}
	if l.common != nil {
		return l.common.Home
	}
	return ""
}

// loadFile reads --config FILE, which holds this process's keys or a section for it, else this process's
// section of HOME/config.yaml, which need not be there.
func (l *loader) loadFile(path, home string) error {
	own := path != ""
	if !own {
		if home == "" {
			return nil
		}
		path = filepath.Join(home, "config.yaml")
	}
	data, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) && !own {
		return nil
	}
	if err != nil {
		return fault.InvalidArgument("CONFIG_UNREADABLE", "cannot read the configuration file %s: %v", path, err).Because(err)
	}
	all, err := yaml.Parser().Unmarshal(data)
	if err != nil {
		return fault.InvalidArgument("CONFIG_INVALID", "%s is not YAML: %v", path, err)
	}
	l.loaded.File = path
	values, ok := all[l.process].(map[string]any)
	if !ok {
		if !own {
			return l.checkSections(path, all)
		}
		values = all
	}
	flat := map[string]any{}
	if err := l.flatten(path, "", values, flat); err != nil {
		return err
	}
	return l.merge(flat, func(string) string { return "file " + path })
}

// checkSections looks for this process's name misspelt; other processes' sections are not ours to judge.
func (l *loader) checkSections(path string, all map[string]any) error {
	for section := range all {
		if s := fault.Suggest(section, []string{l.process}); s != "" {
			return fault.InvalidArgument("CONFIG_UNKNOWN", "%s has a section %q: %s", path, section, s)
		}
	}
	return nil
}

func (l *loader) flatten(path, prefix string, in, out map[string]any) error {
	for k, v := range in {
		key := prefix + k
		if sub, ok := v.(map[string]any); ok && slices.ContainsFunc(l.fields, func(f field) bool { return strings.HasPrefix(f.key, key+".") }) {
			if err := l.flatten(path, key+".", sub, out); err != nil {
				return err
			}
			continue
		}
		if !l.known(key) {
			return l.unknown("key", key, "file "+path, l.keys())
		}
		if v != nil { // "key:" with nothing after it leaves the default
			out[key] = v
		}
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("larger than %s", Size(maxFile))
	}
	return data, err
}

func (l *loader) known(key string) bool { return slices.Contains(l.keys(), key) }

func (l *loader) keys() []string {
	keys := make([]string, len(l.fields))
	for i, f := range l.fields {
		keys[i] = f.key
	}
	return keys
}

func (l *loader) unknown(what, name, source string, known []string) error {
	hint := fault.Suggest(name, known)
	if hint == "" {
		hint = "--help lists what there is"
	}
	return fault.InvalidArgument("CONFIG_UNKNOWN", "unknown %s %q (from %s) for %s: %s", what, name, source, l.process, hint)
}
