package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
)

type settings struct {
	config.Common
	Queue   int           `koanf:"queue_length" help:"how many wait"`
	Timeout time.Duration `koanf:"timeout" help:"how long"`
	Cache   struct {
		Size config.Size `koanf:"size" help:"how much"`
		On   bool        `koanf:"on"`
	} `koanf:"cache"`
	Names []string `koanf:"names"`
	Token string   `koanf:"token" secret:"true"`
	Ratio float64  `koanf:"ratio"`
}

func (s *settings) Validate() error {
	if s.Queue < 1 {
		return errors.New("queue_length must be at least 1")
	}
	return nil
}

func defaults() *settings {
	s := &settings{Queue: 10, Timeout: time.Second}
	s.Cache.Size = 64 << 20
	return s
}

func load(t *testing.T, s *settings, env []string, args ...string) (*config.Loaded, error) {
	t.Helper()
	return config.Load("task", s, args, config.WithEnviron(env), config.WithStdout(&bytes.Buffer{}))
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedenceAndProvenance(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.yaml"), `
broker: {anything: 1}
task:
  queue_length: 20
  timeout: 2s
  cache: {size: 1GiB, on: true}
  names: [a, b]
  ratio: 0.5
  token:
`)
	s := defaults()
	l, err := load(t, s, []string{"SHALLOT_TASK_TIMEOUT=3s", "SHALLOT_TASK_CACHE_SIZE=2GiB", "SHALLOT_NODE_X=1", "SHALLOT_TASK_TOKEN=hush"},
		"--home", dir, "--cache.size=3GiB", "--log.level", "debug", "--queue-length", "0x15")
	if err != nil {
		t.Fatal(err)
	}
	if s.Queue != 21 || s.Timeout != 3*time.Second || s.Cache.Size != 3<<30 || !s.Cache.On || !slices.Equal(s.Names, []string{"a", "b"}) || s.Ratio != 0.5 {
		t.Errorf("got %+v", s)
	}
	if s.Listen != "unix:"+filepath.Join(dir, "run", "task.sock") || s.Log.Level != "debug" || s.Log.Format != "json" {
		t.Errorf("common %+v", s.Common)
	}
	for key, want := range map[string]string{"queue_length": "flag --queue_length", "timeout": "environment SHALLOT_TASK_TIMEOUT",
		"cache.on": "file " + filepath.Join(dir, "config.yaml"), "log.format": "default"} {
		if got := l.Source(key); got != want {
			t.Errorf("source of %s is %q, want %q", key, got, want)
		}
	}
	for _, v := range l.Values {
		if v.Key == "token" && v.Value != "***" || v.Key == "cache.size" && v.Value != "3GiB" {
			t.Errorf("%+v", v)
		}
	}
}

func TestErrorsNameKeyValueAndSource(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string { return write(t, filepath.Join(t.TempDir(), "c.yaml"), text) }
	for name, c := range map[string]struct {
		env  []string
		args []string
		want []string
	}{
		"unknown flag":      {nil, []string{"--lisen", "x"}, []string{`"--lisen"`, "command line", `did you mean "--listen"?`}},
		"unknown variable":  {[]string{"SHALLOT_TASK_TIMEOT=1s"}, nil, []string{"SHALLOT_TASK_TIMEOT", "environment", "SHALLOT_TASK_TIMEOUT"}},
		"unknown key":       {nil, []string{"--config", file("cache:\n  sise: 1\n")}, []string{`"cache.sise"`, "c.yaml", `"cache.size"`}},
		"bad duration":      {[]string{"SHALLOT_TASK_TIMEOUT=5"}, nil, []string{"timeout", `"5"`, "SHALLOT_TASK_TIMEOUT", "2s"}},
		"bad size":          {nil, []string{"--cache.size", "lots"}, []string{"cache.size", `"lots"`, "flag", "64MiB"}},
		"bad number":        {nil, []string{"--config", file("queue_length: 1.5")}, []string{"queue_length", `"1.5"`, "whole number"}},
		"number too large":  {nil, []string{"--queue_length", "99999999999999999999"}, []string{"queue_length"}},
		"list for a scalar": {nil, []string{"--config", file("timeout: [1s]")}, []string{"timeout", "single value"}},
		"map for a list":    {nil, []string{"--config", file("names: {a: 1}")}, []string{"names", "not a list"}},
		"bad level":         {nil, []string{"--log.level", "inf"}, []string{"log.level", `"inf"`, `did you mean "info"?`}},
		"bad secret":        {nil, []string{"--ratio", "x"}, []string{"ratio", "not a number"}},
		"missing value":     {nil, []string{"--timeout"}, []string{"--timeout", "value"}},
		"argument":          {nil, []string{"stray"}, []string{`"stray"`}},
		"missing file":      {nil, []string{"--config", "/nowhere/c.yaml"}, []string{"/nowhere/c.yaml"}},
		"no YAML":           {nil, []string{"--config", file("\t{")}, []string{"not YAML"}},
		"validate":          {nil, []string{"--queue_length", "0"}, []string{"queue_length", "at least 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, defaults(), c.env, append([]string{"--home", dir}, c.args...)...)
			f := fault.From(err)
			if f == nil || f.Code != codes.InvalidArgument {
				t.Fatalf("got %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(f.Message, w) {
					t.Errorf("%q does not say %q", f.Message, w)
				}
			}
		})
	}
}

func TestHomeIsRequiredAndItsSectionMayBeMisspelt(t *testing.T) {
	if _, err := load(t, defaults(), nil); err == nil || !strings.Contains(err.Error(), "SHALLOT_TASK_HOME") {
		t.Errorf("got %v", err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.yaml"), "taks: {queue_length: 3}\n")
	if _, err := load(t, defaults(), nil, "--home", dir); err == nil || !strings.Contains(err.Error(), `did you mean "task"?`) {
		t.Errorf("got %v", err)
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	_, err := config.Load("task", defaults(), []string{"--help"}, config.WithEnviron(nil), config.WithStdout(&out))
	if !errors.Is(err, config.ErrHelp) {
		t.Fatal(err)
	}
	for _, want := range []string{"--cache.size", "64MiB", "SHALLOT_TASK_CACHE_SIZE", "how much", "--config FILE", "--log.level", "info"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, out.String())
		}
	}
}

func TestFileFromTheEnvironment(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "c.yaml"), "queue_length: 33")
	s := defaults()
	l, err := load(t, s, []string{"SHALLOT_TASK_CONFIG=" + path}, "--home", t.TempDir())
	if err != nil || s.Queue != 33 || l.File != path {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestArgs(t *testing.T) {
	s := struct {
		On bool `koanf:"on"`
	}{}
	l, err := config.Load("x", &s, []string{"--on", "a", "--", "--on", "b"}, config.WithEnviron(nil), config.AllowArgs())
	if err != nil || !s.On || !slices.Equal(l.Args, []string{"a", "--on", "b"}) {
		t.Errorf("%+v %v %v", l, s, err)
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"64MiB", "0", "1.5GB", "-1", "9EiB", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var s, again config.Size
		if s.UnmarshalText([]byte(in)) != nil {
			return
		}
		if s < 0 {
			t.Fatalf("%q is %d", in, s)
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Fatalf("%d prints as %s, which reads as %d (%v)", s, s, again, err)
		}
	})
}

// Whatever process has a mode: in the anonymous one traces leave by a Unix socket alone.
func TestAnonymousProcessesCallNoCollectorElsewhere(t *testing.T) {
	type moded struct {
		config.Common
		Mode string `koanf:"mode"`
	}
	for _, c := range []struct {
		mode, endpoint string
		ok             bool
	}{{"anonymous", "collector.example.org:4317", false}, {"anonymous", "127.0.0.1:4317", false}, {"anonymous", "unix:/run/otel", true}, {"anonymous", "", true}, {"open", "collector.example.org:4317", true}} {
		_, err := config.Load("x", &moded{}, []string{"--home", t.TempDir(), "--mode", c.mode, "--trace.tls", "--trace.endpoint", c.endpoint})
		if (err == nil) != c.ok || err != nil && (!strings.Contains(err.Error(), "trace.endpoint") || !strings.Contains(err.Error(), "flag")) {
			t.Errorf("%s, %q: %v", c.mode, c.endpoint, err)
		}
	}
}
