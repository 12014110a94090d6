package command

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// inputs makes a folder of files.
func (w *world) inputs(contents map[string]string) string {
	w.t.Helper()
	dir := w.t.TempDir()
	for name, text := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return dir
}

func (w *world) output(dir string) map[string]string {
	w.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			w.t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

func TestMapWritesAFilePerInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Break("CreateJob", 1)
	w.node.Break("AddShards", 1)
	w.node.Break("WatchJob", 2)
	large := strings.Repeat("large ", 100_000)
	in, out := w.inputs(map[string]string{"a.txt": "one", "b.txt": large, "c.txt": "", ".hidden.txt": "no", "d.csv": "no"}), filepath.Join(t.TempDir(), "deep", "out")
	args := []string{"map", "wasm", w.script("x"), "--inputs", in + "/*.txt", "--output", out, "--env", "A=b", "--timeout", "5s", "--parallel", "7", "--hedge", "--label", "k=v", "--as-file", "--", "-v", "x"}
	w.run(args...).want(t, 0, "", "3 inputs are done")
	got := w.output(out)
	if len(got) != 3 || got["a.txt"] != "ONE" || got["b.txt"] != strings.ToUpper(large) || got["c.txt"] != "" {
		t.Fatalf("%d files, %q", len(got), got["a.txt"])
	}
	s := w.node.Jobs.Specs()[0]
	p := s.GetTask().GetWasm()
	if s.GetTotal() != 3 || s.GetParallel() != 7 || !s.GetHedge() || s.GetInputPath() != "input" || strings.Join(p.GetArgs(), "|") != "-v|x" || p.GetEnv()["A"] != "b" ||
		s.GetTask().GetLimits().GetTime().AsDuration().Seconds() != 5 || s.GetTask().GetLabels()["k"] != "v" || p.GetModule().GetInline() == nil {
		t.Fatalf("the job is %v", s)
	}
	// The same command is the same job; a result that is damaged or gone is written again.
	if err := os.WriteFile(filepath.Join(out, "a.txt"), []byte("TWO"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(out, "b.txt"))
	if err := os.WriteFile(filepath.Join(out, ".a.txt12345"), []byte("left by a command that was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run(args...).want(t, 0, "", "3 inputs are done")
	if got := w.output(out); len(got) != 3 || got["a.txt"] != "ONE" || got["b.txt"] != strings.ToUpper(large) {
		t.Fatalf("%d files, %q", len(got), got["a.txt"])
	}
	if n := len(w.node.Jobs.Specs()); n != 1 {
		t.Fatalf("%d jobs", n)
	}
	for _, other := range [][]string{
		append(append([]string{}, args[:len(args)-1]...), "y"),
		append([]string{"map", "wasm", w.script("y")}, args[3:]...),
	} {
		w.run(other...).want(t, 0, "", "done")
	}
	if n := len(w.node.Jobs.Specs()); n != 3 {
		t.Fatalf("other arguments and another program make %d jobs", n-1)
	}
	w.run(append([]string{"map", "wasm", "--again"}, args[2:]...)...).want(t, 0, "", "done")
	if n := len(w.node.Jobs.Specs()); n != 4 {
		t.Fatalf("--again makes %d jobs", n-3)
	}
}

// What is not said is the node's to decide; how many there are is not part of what makes a job the same.
func TestMapPersonas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in, out := w.inputs(map[string]string{"a": "one"}), t.TempDir()
	args := func(more ...string) []string {
		return append([]string{"map", "wasm", w.script("x"), "--inputs", in + "/*", "--output", out}, more...)
	}
	w.run(args("--personas", "0")...).want(t, exitUsage, "", "--personas is 0")
	w.run(args("--personas", "3")...).want(t, 0, "", "done")
	w.run(args("--personas", "4")...).want(t, 0, "", "done")
	w.run(args("--again")...).want(t, 0, "", "done")
	if s := w.node.Jobs.Specs(); len(s) != 2 || s[0].GetPersonas() != 3 || s[1].GetPersonas() != 0 {
		t.Errorf("the jobs are %v", s)
	}
}

func TestMapListsFailures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in, out := w.inputs(map[string]string{"a": "one", "b": "exit", "c": "exit too"}), t.TempDir()
	args := []string{"map", "wasm", w.script("x"), "--inputs", in + "/*", "--output", out}
	r := w.run(args...)
	r.want(t, exitFailed, "", "2 of 3 inputs failed")
	for _, line := range []string{"b: EXIT_CODE: the program ended with exit code 3 (task 000000000000)", "c: EXIT_CODE"} {
		if !strings.Contains(r.stderr, line) {
			t.Errorf("stderr lacks %q: %q", line, r.stderr)
		}
	}
	if got := w.output(out); len(got) != 1 || got["a"] != "ONE" {
		t.Fatalf("files: %v", got)
	}
	r = w.run(append([]string{"map", "wasm", "--json"}, args[2:]...)...)
	var events []string
	for line := range strings.Lines(r.stdout) {
		var doc struct {
			Event    string
			File     string
			Failures []struct{ Name string }
		}
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		events = append(events, doc.Event)
		if doc.Event == "job" && len(doc.Failures) != 2 {
			t.Errorf("failures: %v", doc)
		}
	}
	if got := strings.Join(events, " "); r.code != exitFailed || strings.Count(got, "input") != 3 || !strings.HasSuffix(got, "job") || !strings.Contains(got, "progress") {
		t.Fatalf("exit code %d, events %s", r.code, got)
	}
}

// TestMapPausesOnInterrupt: what is done is written, and the same command goes on.
func TestMapPausesOnInterrupt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	contents := map[string]string{}
	for i := range 20 {
		contents[fmt.Sprintf("%02d", i)] = fmt.Sprintf("text %d", i)
	}
	in, out := w.inputs(contents), t.TempDir()
	var once sync.Once
	w.node.Jobs.Held = func(_ *taskv1.Job, ended int) bool {
		if ended == 8 {
			once.Do(func() { w.interrupts <- syscall.SIGINT })
		}
		return ended == 8
	}
	args := []string{"map", "wasm", w.script("x"), "--inputs", in + "/*", "--output", out, "--parallel", "3"}
	w.run(args...).want(t, exitInterrupted, "", "is paused")
	if r := w.run("job", "ls"); !strings.Contains(r.stdout, "PAUSED") || !strings.Contains(r.stdout, "8/20") {
		t.Fatalf("jobs: %s", r.stdout)
	}
	w.node.Jobs.Held = nil
	w.run(args...).want(t, 0, "", "going on with job")
	if got := w.output(out); len(got) != 20 || got["19"] != "TEXT 19" {
		t.Fatalf("%d files", len(got))
	}
}

func TestMapDetachesAndCollects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in, out := w.inputs(map[string]string{"a": "one", "b": "two"}), t.TempDir()
	args := []string{"map", "wasm", w.script("x"), "--inputs", in + "/*", "--output", out}
	r := w.run(append([]string{"map", "wasm", "--detach"}, args[2:]...)...)
	if r.code != 0 || !fullID.MatchString(strings.TrimSpace(r.stdout)) || len(w.output(out)) != 0 {
		t.Fatalf("detached: %+v", r)
	}
	w.run(args...).want(t, 0, "", "2 inputs are done")
	if got := w.output(out); got["b"] != "TWO" {
		t.Fatalf("%v", got)
	}
}

func TestMapMistakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in, other := w.inputs(map[string]string{"a": "one", "b": "two"}), w.inputs(map[string]string{"b": "three"})
	app, out := w.script("x"), filepath.Join(t.TempDir(), "out")
	for says, args := range map[string][]string{
		"would both have the result b":    {app, "--inputs", in + "/*", "--inputs", other + "/*", "--output", out},
		"matches no file":                 {app, "--inputs", in + "/*.none", "--output", out},
		"is no pattern":                   {app, "--inputs", in + "/[", "--output", out},
		"quote the GLOB":                  {app, "--output", out, "--inputs", in + "/a", in + "/b"},
		"FILE is missing":                 {"--inputs", in + "/*", "--output", out},
		"its result would replace":        {app, "--inputs", in + "/*", "--output", in},
		"--output is missing":             {app, "--inputs", in + "/*"},
		"--parallel is 0":                 {app, "--inputs", in + "/*", "--output", out, "--parallel", "0"},
		`"A" is not KEY=VALUE`:            {app, "--inputs", in + "/*", "--output", out, "--env", "A"},
		"cannot read the module /nowhere": {"/nowhere/app.wasm", "--inputs", in + "/*", "--output", out},
	} {
		r := w.run(append([]string{"map", "wasm"}, args...)...)
		if r.code != exitUsage && !strings.Contains(says, "cannot read") || r.code == 0 || !strings.Contains(r.stderr, says) {
			t.Errorf("%v: exit code %d, %q lacks %q", args, r.code, r.stderr, says)
		}
	}
	if n := len(w.node.Jobs.Specs()); n != 0 {
		t.Errorf("%d jobs were made by mistake", n)
	}
}

func TestJobCommands(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("job", "ls").want(t, 0, "", "there are no jobs")
	in, out := w.inputs(map[string]string{"a": "one", "b": "exit", "c": "x"}), t.TempDir()
	w.node.Jobs.Held = func(_ *taskv1.Job, ended int) bool { return ended == 2 }
	args := []string{"map", "wasm", w.script("x"), "--inputs", in + "/*", "--output", out, "--detach"}
	id := strings.TrimSpace(w.run(args...).stdout)
	short := id[len(id)-6:]
	w.run("job", "pause", id).want(t, 0, "", "is PAUSED: 2 of 3")
	w.run("job", "resume", id).want(t, 0, "", "is RUNNING")
	r := w.run("job", "show", id)
	if r.code != 0 || !strings.Contains(r.stdout, "3: 1 waiting") || !strings.Contains(r.stdout, "EXIT_CODE") {
		t.Fatalf("%+v", r)
	}
	if doc := w.run("job", "show", id, "--output", "json").json(t); doc["state"] != "RUNNING" || len(doc["failures"].([]any)) != 1 {
		t.Fatalf("%v", doc)
	}
	w.node.Jobs.Held = nil
	w.run("job", "show", id)
	r = w.run("job", "watch", id)
	if r.code != exitFailed || strings.Count(r.stdout, "COMPLETED") != 2 || !strings.Contains(r.stdout, "b  EXIT_CODE") || !strings.Contains(r.stdout, "FAILED  3 of 3 done") {
		t.Fatalf("%+v", r)
	}
	w.run("job", "cancel", id).want(t, exitState, "", "is FAILED")
	w.run("job", "show", strings.Repeat("0", 26)+"ffffff").want(t, exitNotFound, "", "there is no job")
	w.run("job", "show", "dead"+short).want(t, exitNotFound, "", "'shallot job ls' lists them")
	w.run("job", "ls", "--state", "RUNING").want(t, exitUsage, "", "RUNNING")
	if doc := w.run("job", "ls", "--state", "failed", "--output", "json").json(t); len(doc["jobs"].([]any)) != 1 {
		t.Fatalf("%v", doc)
	}
}

// TestMapBeginsAnewAfterCancel: a cancelled job is over; the same command makes another.
func TestMapBeginsAnewAfterCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in, out := w.inputs(map[string]string{"a": "one", "b": "two"}), t.TempDir()
	w.node.Jobs.Held = func(*taskv1.Job, int) bool { return true }
	args := []string{"map", "wasm", w.script("x"), "--inputs", in + "/*", "--output", out}
	id := strings.TrimSpace(w.run(append([]string{"map", "wasm", "--detach"}, args[2:]...)...).stdout)
	w.run("job", "cancel", id).want(t, 0, "", "is CANCELLED")
	w.node.Jobs.Held = nil
	w.run(args...).want(t, 0, "", "2 inputs are done")
	if n := len(w.node.Jobs.Specs()); n != 2 {
		t.Fatalf("%d jobs", n)
	}
}
