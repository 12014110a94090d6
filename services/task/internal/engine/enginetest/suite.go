package enginetest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/engine"
)

// Suite is what every engine must do. open makes one with an empty directory to itself.
func Suite(t *testing.T, open func(scratch string) (engine.Engine, error)) {
	newEngine := func(t *testing.T) engine.Engine {
		t.Helper()
		e, err := open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		return e
	}
	t.Run("outcomes", func(t *testing.T) { outcomes(t, newEngine(t)) })
	t.Run("arguments and environment", func(t *testing.T) { arguments(t, newEngine(t)) })
	t.Run("stdin", func(t *testing.T) { stdin(t, newEngine(t)) })
	t.Run("files", func(t *testing.T) { files(t, newEngine(t)) })
	t.Run("output", func(t *testing.T) { output(t, newEngine(t)) })
	t.Run("memory", func(t *testing.T) { memory(t, newEngine(t)) })
	t.Run("artefacts", func(t *testing.T) { artefacts(t, newEngine(t), newEngine(t)) })
	t.Run("compile errors", func(t *testing.T) { compileErrors(t, newEngine(t)) })
	t.Run("runs leave nothing", func(t *testing.T) { nothingLeft(t, newEngine(t)) })
}

func compile(t testing.TB, e engine.Engine, module []byte) engine.Program {
	t.Helper()
	p, err := e.Compile(module)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

type outputs struct{ stdout, stderr bytes.Buffer }

// run gives a program 16 MiB where cfg says nothing else.
func run(t testing.TB, p engine.Program, cfg engine.Config) (engine.Result, *outputs) {
	t.Helper()
	var out outputs
	if cfg.Memory == 0 {
		cfg.Memory = 16 << 20
	}
	if cfg.Args == nil {
		cfg.Args = []string{"program"}
	}
	if cfg.Stdout == nil {
		cfg.Stdout = &out.stdout
	}
	cfg.Stderr = &out.stderr
	r, err := p.Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r, &out
}

func outcomes(t *testing.T, e engine.Engine) {
	tests := map[string]struct {
		code   int32
		trap   string // contained
		stdout string
		stderr string
	}{
		"hello":   {stdout: "hello\n"},
		"exit3":   {code: 3, stdout: "out\n", stderr: "err\n"},
		"exit200": {code: 200},
		"trap":    {trap: "divide by zero"},
		"recurse": {trap: "stack"},
		"startfn": {trap: "unreachable"},
		"clock":   {},
		"sleep":   {},
		"probe":   {stdout: "........0\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if Race && name == "recurse" {
				t.Skip("too slow with the race detector")
			}
			r, out := run(t, compile(t, e, Program(name)), engine.Config{})
			if r.ExitCode != test.code || (r.Trap == "") != (test.trap == "") || !strings.Contains(r.Trap, test.trap) || r.OutOfMemory {
				t.Errorf("%+v, want exit code %d, trap %q", r, test.code, test.trap)
			}
			if strings.Contains(r.Trap, "\n") {
				t.Errorf("the trap has several lines: %q", r.Trap)
			}
			if out.stdout.String() != test.stdout || out.stderr.String() != test.stderr {
				t.Errorf("stdout %q, stderr %q, want %q, %q", &out.stdout, &out.stderr, test.stdout, test.stderr)
			}
		})
	}
}

func arguments(t *testing.T, e engine.Engine) {
	p := compile(t, e, Program("args"))
	tests := map[string]struct {
		cfg  engine.Config
		want string
	}{
		"nothing but a name": {engine.Config{}, "program\x00"},
		"arguments":          {engine.Config{Args: []string{"program", "-x", "", "ü"}}, "program\x00-x\x00\x00ü\x00"},
		"environment":        {engine.Config{Env: []engine.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: ""}}}, "program\x00A=1\x00B=\x00"},
	}
	t.Setenv("OF_THE_HOST", "secret")
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, out := run(t, p, test.cfg); out.stdout.String() != test.want {
				t.Errorf("%q, want %q", &out.stdout, test.want)
			}
		})
	}
}

func stdin(t *testing.T, e engine.Engine) {
	p := compile(t, e, Program("cat"))
	size := 64 << 10
	if Race {
		size = 16 << 10
	}
	large := strings.Repeat("0123456789abcdef", size)
	path := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(path, []byte(large), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		cfg  engine.Config
		want string
	}{
		"none":        {engine.Config{}, ""},
		"bytes":       {engine.Config{Stdin: []byte("some\x00text")}, "some\x00text"},
		"many bytes":  {engine.Config{Stdin: []byte(large)}, large},
		"a file":      {engine.Config{StdinPath: path}, large},
		"none again ": {engine.Config{}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, out := run(t, p, test.cfg); out.stdout.String() != test.want {
				t.Errorf("%d bytes, want %d", out.stdout.Len(), len(test.want))
			}
		})
	}
	t.Run("a file that is not there", func(t *testing.T) {
		if _, err := p.Run(engine.Config{StdinPath: path + "-", Memory: 1 << 20}); err == nil {
			t.Error("no error")
		}
	})
}

func files(t *testing.T, e engine.Engine) {
	dir := t.TempDir()
	in, outDir := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	for name, text := range map[string]string{"in/a.txt": "a ", "in/sub/b.txt": "b ", "secret": "secret"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(outDir, 0o700), os.Symlink("/etc/passwd", filepath.Join(in, "link"))); err != nil {
		t.Fatal(err)
	}
	p := compile(t, e, Program("files"))
	if !p.Files() || compile(t, e, Program("hello")).Files() {
		t.Error("it is not known which program can see files")
	}
	r, out := run(t, p, engine.Config{In: in, Out: outDir})
	if r.Trap != "" || r.ExitCode != 0 || out.stdout.String() != "a b ........." {
		t.Errorf("%+v, %q", r, &out.stdout)
	}
	for name, want := range map[string]string{"o.txt": "made", "empty": "", "d/p.txt": "made"} {
		if b, err := os.ReadFile(filepath.Join(outDir, name)); err != nil || string(b) != want {
			t.Errorf("%s is %q, %v", name, b, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(in, "a.txt")); err != nil || string(b) != "a " {
		t.Errorf("the input is %q now, %v", b, err)
	}
}

// counting fails after some bytes.
type counting struct {
	n, most int
	calls   int // after the first error
}

var errFull = errors.New("full")

func (c *counting) Write(p []byte) (int, error) {
	if c.most > 0 && c.n >= c.most {
		c.calls++
		return 0, errFull
	}
	c.n += len(p)
	return len(p), nil
}

func output(t *testing.T, e engine.Engine) {
	p := compile(t, e, Program("cat"))
	in := bytes.Repeat([]byte("x"), 3<<20)
	t.Run("all of it", func(t *testing.T) {
		w := &counting{}
		run(t, p, engine.Config{Stdin: in, Stdout: w})
		if w.n != len(in) {
			t.Errorf("%d bytes of %d", w.n, len(in))
		}
	})
	t.Run("a writer that fails", func(t *testing.T) {
		w := &counting{most: 100_000}
		run(t, p, engine.Config{Stdin: in, Stdout: w})
		if w.n < 100_000 || w.n > 300_000 || w.calls > 1 {
			t.Errorf("%d bytes were written, and %d times after the first error", w.n, w.calls)
		}
	})
	t.Run("after that", func(t *testing.T) {
		if _, out := run(t, compile(t, e, Program("hello")), engine.Config{}); out.stdout.String() != "hello\n" {
			t.Errorf("%q", &out.stdout)
		}
	})
}

func memory(t *testing.T, e engine.Engine) {
	tests := map[string]struct {
		program string
		limit   int64
		refused bool
		trap    bool
		most    int64
	}{
		"little":            {program: "hello", limit: 1 << 20, most: 64 << 10},
		"all there is":      {program: "hog", limit: 8 << 20, refused: true, trap: true, most: 8 << 20},
		"all of more":       {program: "hog", limit: 40 << 20, refused: true, trap: true, most: 40 << 20},
		"too much at once":  {program: "grab", limit: 64 << 20, most: 64 << 10},
		"enough to begin":   {program: "large", limit: 32 << 20, most: 32 << 20},
		"too much to begin": {program: "large", limit: 31 << 20, refused: true, trap: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r, _ := run(t, compile(t, e, Program(test.program)), engine.Config{Memory: test.limit})
			if r.OutOfMemory != test.refused || (r.Trap != "") != test.trap || r.PeakMemory > test.most {
				t.Errorf("%+v", r)
			}
		})
	}
}

// artefacts go from one engine to another, as from one process to the next.
func artefacts(t *testing.T, from, to engine.Engine) {
	if from.Name() != to.Name() || from.Version() != to.Version() || from.Name() == "" || from.Version() == "" {
		t.Errorf("%s %s, %s %s", from.Name(), from.Version(), to.Name(), to.Version())
	}
	module := Program("exit3")
	var b bytes.Buffer
	if err := compile(t, from, module).Artefact(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "artefact")
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	source := func() ([]byte, error) { return module, nil }
	write(b.Bytes())
	p, err := to.Load(path, source)
	if err != nil {
		t.Fatal(err)
	}
	if r, out := run(t, p, engine.Config{}); r.ExitCode != 3 || out.stdout.String() != "out\n" {
		t.Errorf("loaded, it gives %+v, %q", r, &out.stdout)
	}
	_ = p.Close()
	write([]byte("something else"))
	if _, err := to.Load(path, source); !errors.Is(err, engine.ErrArtefact) {
		t.Errorf("of something else: %v", err)
	}
	if _, err := to.Load(path+"-", source); err == nil {
		t.Error("of no file: no error")
	}
}

func compileErrors(t *testing.T, e engine.Engine) {
	for name, module := range map[string][]byte{"empty": {}, "text": []byte("hello"), "broken": Broken(), "cut off": Program("cat")[:100]} {
		t.Run(name, func(t *testing.T) {
			_, err := e.Compile(module)
			var bad *engine.CompileError
			if !errors.As(err, &bad) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
		})
	}
}

func nothingLeft(t *testing.T, e engine.Engine) {
	count, hog := compile(t, e, Program("count")), compile(t, e, Program("hog"))
	runs := 50
	if Race {
		runs = 5
	}
	for range runs {
		if _, out := run(t, count, engine.Config{}); out.stdout.String() != "1\n" {
			t.Fatalf("%q", &out.stdout)
		}
		if r, _ := run(t, hog, engine.Config{Memory: 2 << 20}); r.Trap == "" {
			t.Fatalf("%+v", r)
		}
	}
}

// Bench measures one warm run.
func Bench(b *testing.B, e engine.Engine, module []byte, cfg engine.Config) {
	p := compile(b, e, module)
	cfg.Args, cfg.Stdout, cfg.Memory = []string{"program"}, io.Discard, 256<<20
	for b.Loop() {
		if r, err := p.Run(cfg); err != nil || r.Trap != "" || r.ExitCode != 0 {
			b.Fatal(r, err)
		}
	}
}
