package suite

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const consumer = "consumer-1"

func TestSum(t *testing.T) {
	n := sharedNetwork(t)
	many := make([]string, 0, 100_000)
	for range 100_000 {
		many = append(many, "1")
	}
	for _, c := range []struct {
		name string
		args []string
		want string
		code int
		says string
	}{
		{"integers", []string{"1", "2", "3"}, "6\n", 0, ""},
		{"negative", []string{"--", "-1", "2"}, "1\n", 0, ""},
		{"decimals", []string{"0.1", "0.2"}, "0.3\n", 0, ""},
		{"a large exponent", []string{"1e400", "1"}, "1" + strings.Repeat("0", 399) + "1\n", 0, ""},
		{"past 10,000 digits", []string{"1e10001", "1"}, "", -1, "1e10001"},
		{"a word", []string{"1", "banana"}, "", -1, "banana"},
		{"nothing", nil, "", -1, "addend"},
		{"a hundred thousand", many, "100000\n", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"run", "sum"}, c.args...)
			var r outcome
			if len(c.args) > 1000 { // more than a command line should hold: from stdin
				r = shallot(t, n, consumer, strings.Join(c.args, "\n"), "run", "sum", "--stdin", "-")
			} else {
				r = shallot(t, n, consumer, "", args...)
			}
			if c.code == -1 {
				if r.code == 0 || !strings.Contains(r.stderr, c.says) {
					t.Fatalf("exit code %d, stderr %q: want an error that names %q", r.code, r.stderr, c.says)
				}
			} else if r.code != c.code {
				t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
			}
			if r.stdout != c.want {
				t.Fatalf("stdout %.100q, want %.100q", r.stdout, c.want)
			}
		})
	}
}

func TestWasmPrograms(t *testing.T) {
	n := sharedNetwork(t)
	probe := program("probe.wasm")
	input := filepath.Join(t.TempDir(), "in put.txt")
	if err := os.WriteFile(input, []byte("hello input"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		flags  []string
		stdin  string
		args   []string
		stdout string
		stderr string // contained
		code   int    // -1: any but 0
	}{
		{"arguments", nil, "", []string{"echo", "a b", "c"}, "a b c\n", "", 0},
		{"stdin", []string{"--stdin", "-"}, "line\n\x00\xff", []string{"cat"}, "line\n\x00\xff", "", 0},
		{"environment", []string{"--env", "K=V W"}, "", []string{"env"}, "K=V W\n", "", 0},
		{"input file", []string{"--input", input}, "", []string{"read", "in put.txt"}, "hello input", "", 0},
		{"its own exit code", nil, "", []string{"exit", "3"}, "", "about to leave", 3},
		{"time limit", []string{"--timeout", "1s"}, "", []string{"loop"}, "", "TIME_LIMIT", -1},
		{"memory limit", []string{"--memory", "64MiB"}, "", []string{"hog", "10240"}, "", "MEMORY_LIMIT", -1},
		{"output limit", []string{"--output-limit", "1MiB"}, "", []string{"print", "10737418240"}, "", "OUTPUT_LIMIT", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			args := append(append([]string{"run", "wasm", probe}, c.flags...), "--")
			r := shallot(t, n, consumer, c.stdin, append(args, c.args...)...)
			if (c.code >= 0 && r.code != c.code) || (c.code == -1 && r.code == 0) {
				t.Fatalf("exit code %d, stderr %q", r.code, r.stderr)
			}
			if c.code >= 0 && r.stdout != c.stdout {
				t.Fatalf("stdout %q, want %q", r.stdout, c.stdout)
			}
			if !strings.Contains(r.stderr, c.stderr) {
				t.Fatalf("stderr %q, want %q in it", r.stderr, c.stderr)
			}
		})
	}
}

// A directory goes to a program and another one comes back, small files with the task and large ones by reference.
func TestDirectoryThereAndBack(t *testing.T) {
	n := sharedNetwork(t)
	in, out := filepath.Join(t.TempDir(), "tree"), filepath.Join(t.TempDir(), "result")
	want := map[string]string{"a.txt": "first", "sub/deep/b.txt": "second", "sub/.hidden": "third", "empty": "", "large": strings.Repeat("large ", 200_000), "sub/shared": strings.Repeat("shared", 10_000)}
	for i := range 50 {
		want[fmt.Sprintf("many/%02d/f", i)] = strings.Repeat(fmt.Sprint(i), i*100)
	}
	for name, text := range want {
		path := filepath.Join(in, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	r := shallot(t, n, consumer, "", "run", "wasm", program("probe.wasm"), "--input", in, "--output-dir", out, "--", "copytree")
	if r.code != 0 || !strings.Contains(r.stdout, "tree/sub/deep/b.txt 6\n") {
		t.Fatalf("exit code %d, stdout %.300q, stderr %q", r.code, r.stdout, r.stderr)
	}
	got := map[string]string{}
	if err := fs.WalkDir(os.DirFS(filepath.Join(out, "tree")), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(out, "tree", p))
		got[p] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		if got[name] != strings.ToUpper(text) {
			t.Errorf("%s came back with %d bytes, not %d", name, len(got[name]), len(text))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files came back, of %d", len(got), len(want))
	}
}

// A program sees nothing of its host: no files, no environment, no network.
func TestProgramSeesNothing(t *testing.T) {
	n := sharedNetwork(t)
	r := shallot(t, n, consumer, "", "run", "wasm", program("probe.wasm"), "--", "look")
	if r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	for _, want := range []string{"read /etc/passwd: 0 bytes, error true", "read /proc/self/environ: 0 bytes, error true", "dial: error true", "env: []"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in\n%s", want, r.stdout)
		}
	}
	for _, line := range strings.Split(r.stdout, "\n") {
		if strings.HasPrefix(line, "list ") && !strings.Contains(line, "[]") && !strings.Contains(line, "[in]") {
			t.Errorf("the program saw files: %s", line)
		}
	}
}

func TestTrapIsAFailure(t *testing.T) {
	n := sharedNetwork(t)
	r := shallot(t, n, consumer, "", "run", "wasm", program("trap.wasm"), "--detach")
	if r.code != 0 {
		t.Fatalf("detach: exit code %d: %s", r.code, r.stderr)
	}
	id := strings.TrimSpace(r.stdout)
	watch := shallot(t, n, consumer, "", "task", "watch", id)
	if watch.code == 0 {
		t.Errorf("task watch of a failed task has exit code 0")
	}
	show := shallot(t, n, consumer, "", "task", "show", id, "--output", "json")
	var task struct {
		ID, Type, State, Provider string
		Attempts                  int
		Error                     struct{ Reason, Message string }
		History                   []struct{ What, State string }
	}
	if err := json.Unmarshal([]byte(show.stdout), &task); err != nil {
		t.Fatalf("%v in %s", err, show.stdout)
	}
	if task.ID != id || task.State != "FAILED" || task.Error.Reason != "TRAP" || !strings.Contains(task.Error.Message, "unreachable") {
		t.Errorf("task is %+v", task)
	}
	if task.Attempts != 1 {
		t.Errorf("%d attempts: a program's own failure is final", task.Attempts)
	}
}

// A module that is no module, or wants what is not offered, is refused before anything is sent.
func TestBadModules(t *testing.T) {
	n := sharedNetwork(t)
	dir := t.TempDir()
	text := filepath.Join(dir, "readme.wasm")
	os.WriteFile(text, []byte("this is not wasm"), 0o600)
	// Imports env.launch: () -> (), exports _start.
	imports := filepath.Join(dir, "imports.wasm")
	os.WriteFile(imports, []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x0e\x01\x03env\x06launch\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x01\x0a\x04\x01\x02\x00\x0b"), 0o600)
	for file, says := range map[string]string{text: "wasm", imports: "env.launch"} {
		r := shallot(t, n, consumer, "", "run", "wasm", file)
		if r.code == 0 || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: exit code %d, stderr %q; want an error with %q", filepath.Base(file), r.code, r.stderr, says)
		}
	}
	if r := shallot(t, n, consumer, "", "run", "wasm", filepath.Join(dir, "absent.wasm")); r.code == 0 || !strings.Contains(r.stderr, "absent.wasm") {
		t.Errorf("a missing file: exit code %d, stderr %q", r.code, r.stderr)
	}
}

// A result far larger than a message comes back as content, whole and never held in memory.
func TestLargeResult(t *testing.T) {
	n := sharedNetwork(t)
	const size = 24 << 20
	want := sha256.New()
	x := uint32(1)
	b := make([]byte, 0, 1<<16)
	for range size {
		x = x*1664525 + 1013904223
		if b = append(b, byte(x>>24)); len(b) == cap(b) {
			want.Write(b)
			b = b[:0]
		}
	}
	want.Write(b)
	r := shallot(t, n, consumer, "", "run", "wasm", program("probe.wasm"), "--output-limit", "64MiB", "--", "print", "25165824")
	if r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	got := sha256.Sum256([]byte(r.stdout))
	if len(r.stdout) != size || hex.EncodeToString(got[:]) != hex.EncodeToString(want.Sum(nil)) {
		t.Fatalf("%d bytes with another hash, want %d", len(r.stdout), size)
	}
}

func TestCancelStopsTheProgram(t *testing.T) {
	n := sharedNetwork(t)
	id := strings.TrimSpace(shallot(t, n, consumer, "", "run", "wasm", program("probe.wasm"), "--detach", "--", "loop").stdout)
	waitState(t, n.Home(consumer), id, "RUNNING", 20*time.Second)
	begin := time.Now()
	if r := shallot(t, n, consumer, "", "task", "cancel", id); r.code != 0 {
		t.Fatalf("cancel: exit code %d: %s", r.code, r.stderr)
	}
	waitState(t, n.Home(consumer), id, "CANCELLED", 5*time.Second)
	// On the provider too: nobody runs anything any more.
	eventually(t, 3*time.Second, "no provider has a running task", func() bool {
		for _, p := range []string{"provider-1", "provider-2", "provider-3"} {
			r := shallot(t, n, p, "", "task", "show", id, "--output", "json")
			var task struct{ State string }
			if r.code == 0 && json.Unmarshal([]byte(r.stdout), &task) == nil && task.State != "CANCELLED" {
				return false
			}
		}
		return true
	})
	t.Logf("cancelled in %v", time.Since(begin))
}

func waitState(t *testing.T, _ string, id, state string, timeout time.Duration) {
	t.Helper()
	n := sharedNetwork(t)
	last := ""
	deadline := time.Now().Add(timeout)
	for time.Now().Before(deadline) {
		last = shallot(t, n, consumer, "", "task", "show", id, "--output", "json").stdout
		var task struct{ State string }
		if json.Unmarshal([]byte(last), &task) == nil && task.State == state {
			return
		}
	}
	t.Fatalf("task is not %s within %v: %s", state, timeout, last)
}

func TestLogsAreFollowed(t *testing.T) {
	n := sharedNetwork(t)
	id := strings.TrimSpace(shallot(t, n, consumer, "", "run", "wasm", program("probe.wasm"), "--detach", "--", "logs", "10").stdout)
	r := shallot(t, n, consumer, "", "task", "logs", "--follow", id)
	if r.code != 0 || !strings.Contains(r.stdout, "line 1\n") || !strings.Contains(r.stdout, "line 10\n") {
		t.Fatalf("exit code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	if again := shallot(t, n, consumer, "", "task", "logs", id); again.stdout != r.stdout {
		t.Errorf("kept logs %q differ from followed ones %q", again.stdout, r.stdout)
	}
}

func TestUnknownThings(t *testing.T) {
	n := sharedNetwork(t)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"task", "show", "00000000000000000000000000000000"}, "00000000000000000000000000000000"},
		{[]string{"task", "show", "nonsense"}, "nonsense"},
		{[]string{"content", "stat", "nonsense"}, "nonsense"},
		{[]string{"rum"}, "run"},
		{[]string{"run", "wsam", "x"}, "wasm"},
		{[]string{"run", "sum", "--tmieout", "1s", "1"}, "tmieout"},
	} {
		r := shallot(t, n, consumer, "", c.args...)
		if r.code == 0 || !strings.Contains(r.stderr, c.says) {
			t.Errorf("shallot %s: exit code %d, stderr %q; want %q in it", strings.Join(c.args, " "), r.code, r.stderr, c.says)
		}
	}
	if r := shallot(t, n, "provider-1", "", "run", "sum", "1"); r.code == 0 || !strings.Contains(r.stderr, "consumer") {
		t.Errorf("run at a provider: exit code %d, stderr %q", r.code, r.stderr)
	}
}

func TestContent(t *testing.T) {
	n := sharedNetwork(t)
	body := strings.Repeat("content \x00\xff", 300_000) // some 3 MB
	file := filepath.Join(t.TempDir(), "body")
	os.WriteFile(file, []byte(body), 0o600)
	put := shallot(t, n, consumer, "", "content", "put", file)
	cid := strings.TrimSpace(put.stdout)
	if put.code != 0 || strings.ContainsAny(cid, " \n") || cid == "" {
		t.Fatalf("put printed %q, stderr %q", put.stdout, put.stderr)
	}
	for _, node := range []string{consumer, "provider-1"} { // the second fetches it by bitswap
		if got := shallot(t, n, node, "", "content", "get", cid); got.code != 0 || got.stdout != body {
			t.Errorf("get at %s: exit code %d, %d bytes, stderr %q", node, got.code, len(got.stdout), got.stderr)
		}
	}
}
