package command

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/clitest"
)

func TestRunSum(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("run", "sum", "1", "2", "3").want(t, 0, "6\n", "")
	w.run("run", "sum", "-1", "2").want(t, 0, "1\n", "")
	w.run("run", "sum", "--timeout", "5s", "-1", "-.5", "--label=a=b", "--", "-2").want(t, 0, "-7/2\n", "")
	w.run("run", "sum", "1", "banana").want(t, exitRun, "", `"banana"`)
	w.run("run", "sum").want(t, exitRun, "", "no addend")
	w.stdin = strings.NewReader("1 2\n3\n")
	w.run("run", "sum", "4", "--stdin", "-").want(t, 0, "10\n", "")
	w.run("run", "sum", "--stdin", w.file("empty", " \n")).want(t, exitRun, "", "no addend")
	w.run("run", "sum", "--stdin", "/nowhere/addends").want(t, exitRun, "", "/nowhere/addends")
	for _, task := range w.node.Tasks()[2:3] {
		if s := w.node.Spec(task.GetId()); s.GetLimits().GetTime().AsDuration() != 5*time.Second || s.GetLabels()["a"] != "b" {
			t.Errorf("the spec is %v", s)
		}
	}
}

func TestRunWasmPassesEverythingOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	big := strings.Repeat("\x00\xff stdin", 100_000)
	w.stdin = strings.NewReader(big)
	app := w.script("err talk", "stdin", "exit 3")
	r := w.run("run", "wasm", app, "--stdin", "-", "--env", "A=1=2", "--env", "B=", "--input", w.file("words.txt", "some words"), "--input", w.file("empty", ""),
		"--timeout", "1500ms", "--memory", "64MiB", "--output-limit", "1MiB", "--no-redirect", "--replicas", "3", "--provider", "P1", "--provider", "P2", "--label", "k=v", "--", "-v", "--", "x y")
	if r.code != 3 || r.stdout != big || r.stderr != "talk\n" {
		t.Errorf("exit code %d, %d bytes of stdout, stderr %q", r.code, len(r.stdout), r.stderr)
	}
	s := w.node.Spec(w.node.Tasks()[0].GetId())
	p := s.GetWasm()
	if got := strings.Join(p.GetArgs(), "|"); got != "-v|--|x y" {
		t.Errorf("arguments are %q", got)
	}
	if p.GetEnv()["A"] != "1=2" || len(p.GetEnv()) != 2 {
		t.Errorf("environment is %v", p.GetEnv())
	}
	if p.GetStdin().GetUploadId() == "" || p.GetModule().GetInline() == nil {
		t.Error("a large body was not uploaded, or a small one was")
	}
	if in := p.GetInputs(); len(in) != 2 || in[0].GetPath() != "words.txt" || string(w.node.Uploaded(in[0].GetContent())) != "some words" || in[1].GetPath() != "empty" {
		t.Errorf("inputs are %v", in)
	}
	l := s.GetLimits()
	if l.GetTime().AsDuration() != 1500*time.Millisecond || l.GetMemory() != 64<<20 || l.GetOutput() != 1<<20 {
		t.Errorf("limits are %v", l)
	}
	if pl := s.GetPlacement(); pl.Redirect == nil || pl.GetRedirect() || pl.GetReplicas() != 3 || strings.Join(pl.GetProviders(), " ") != "P1 P2" || s.GetLabels()["k"] != "v" {
		t.Errorf("placement is %v, labels %v", pl, s.GetLabels())
	}
}

func TestRunWasmExitCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		script string
		code   int
		says   string
	}{
		{"exit 0", 0, ""}, {"exit 3", 3, ""}, {"exit 255", 255, ""}, {"exit 256", 255, ""}, {"exit 259", 3, ""}, {"exit -1", 255, ""},
		{"fail TRAP unreachable executed", exitTask, "the task failed: TRAP: unreachable executed"},
		{"fail TIME_LIMIT it ran for 2 s", exitTime, "TIME_LIMIT: it ran for 2 s"},
		{"expire PLACEMENT_CLOCK nobody took it", exitTime, "the task expired: PLACEMENT_CLOCK: nobody took it"},
	} {
		w.run("run", "wasm", w.script("err last words", c.script)).want(t, c.code, "", c.says)
	}
	r := w.run("run", "wasm", w.script("err last words", "fail TRAP x"))
	if !strings.HasPrefix(r.stderr, "last words\nshallot: the task failed") {
		t.Errorf("the program's last words are not before ours: %q", r.stderr)
	}
}

func TestRunWasmMistakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.script("out x")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{}, "FILE is missing"},
		{[]string{"--", "x"}, "FILE is missing"},
		{[]string{app, "x"}, "the program's own arguments come after --"},
		{[]string{"/nowhere/app.wasm"}, "cannot read the module /nowhere/app.wasm: no such file"},
		{[]string{filepath.Dir(app)}, "is a directory"},
		{[]string{w.file("readme.wasm", "this is not wasm")}, "not wasm"},
		{[]string{app, "--stdin", "/nowhere/in"}, "--stdin /nowhere/in"},
		{[]string{app, "--input", w.file("a", ""), "--input", w.file("a", "")}, "would both be /in/a"},
		{[]string{app, "--env", "A"}, `--env "A" is not KEY=VALUE`},
		{[]string{app, "--memory", "much"}, "not a size such as 64MiB"},
		{[]string{app, "--memory", "0"}, "more than 0"},
		{[]string{app, "--timeout", "-1s"}, "more than 0"},
		{[]string{app, "--timeout", "soon"}, "--timeout"},
		{[]string{app, "--redirect", "--no-redirect"}, "no-redirect"},
		{[]string{app, "--output", "yaml"}, "table or json"},
	} {
		r := w.run(append([]string{"run", "wasm"}, c.args...)...)
		r.want(t, exitRun, "", c.says)
	}
	if n := len(w.node.Tasks()); n != 0 {
		t.Errorf("%d tasks were made", n)
	}
}

func TestRunAtAProviderIsRefusedWithTheWayOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Info().Role = "provider"
	w.run("run", "sum", "1").want(t, exitRun, "", "only a consumer submits tasks")
}

func TestRunJSONIsOneDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.run("run", "sum", "1", "2", "--output", "json")
	v := r.json(t)
	if r.code != 0 || v["stdout"] != "3\n" || v["state"] != "COMPLETED" || v["exit_code"] != 0.0 || len(v["history"].([]any)) == 0 || v["error"] != nil {
		t.Errorf("exit code %d, %v", r.code, v)
	}
	w.stdin = strings.NewReader("\xff\xfe")
	v = w.run("run", "wasm", w.script("stdin"), "--stdin", "-", "--output", "json").json(t)
	if v["stdout"] != nil || v["stdout_base64"] != "//4=" || v["stdout_truncated"] != false {
		t.Errorf("bytes that are no text became %v", v)
	}
	if r := w.run("run", "wasm", w.script("fail TRAP x"), "--output", "json"); r.code != exitTask || r.json(t)["state"] != "FAILED" {
		t.Errorf("a failure is %+v", r)
	}
}

func TestDetachPrintsTheIDAndLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Break("SubmitTask", 1) // stored, but the answer is lost
	r := w.run("run", "wasm", w.script("hang"), "--detach")
	tasks := w.node.Tasks()
	if len(tasks) != 1 || r.code != 0 || r.stdout != tasks[0].GetId()+"\n" {
		t.Errorf("%d tasks, %+v", len(tasks), r)
	}
	if v := w.run("run", "sum", "1", "--detach", "--output", "json").json(t); v["id"] == "" || v["type"] != "sum" {
		t.Errorf("got %v", v)
	}
}

func TestRunGoesOnAcrossRestartsOfTheNode(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"RunTask", "RunTask.stdout", "WatchTask", "GetResult", "GetLogs", "Upload"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if method == "WatchTask" || method == "GetResult" {
				w.node.Break("RunTask.stdout", 1) // only then are they used
			}
			w.node.Break(method, 2)
			r := w.run("run", "wasm", w.script("out begin", "zeros 5000", "out end", "err talk", "exit 4"), "--stdin", w.file("in", strings.Repeat("x", 300_000)))
			if want := "begin\n" + strings.Repeat("\x00", 5000) + "end\n"; r.code != 4 || r.stdout != want || r.stderr != "talk\n" {
				t.Errorf("exit code %d, %d bytes of stdout (want %d), stderr %q", r.code, len(r.stdout), len(want), r.stderr)
			}
			if n := len(w.node.Tasks()); n != 1 {
				t.Errorf("%d tasks were made", n)
			}
			if w.node.Calls(method) == 0 {
				t.Errorf("%s was not called: nothing broke", method)
			}
		})
	}
}

func TestRunGoesOnWhenTheNodeServiceIsGoneForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	done := make(chan result, 1)
	app := w.script("hang")
	go func() { done <- w.run("run", "wasm", app) }()
	task := w.node.AwaitTask(t.Context(), "RUNNING")
	w.stop()
	clitest.Serve(t, w.node, w.home)
	w.run("task", "cancel", task.GetId()).want(t, 0, "", "")
	(<-done).want(t, exitInterrupted, "", "the task was cancelled")
}

// begin runs a command beside the test, and returns when its stderr has what is waited for.
func (w *world) begin(said string, args ...string) (stderr *lockedBuffer, done <-chan int) {
	w.t.Helper()
	stderr = &lockedBuffer{}
	ended := make(chan int, 1)
	go func() {
		sys := System{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: stderr, Getenv: func(string) string { return "" }, Interrupts: w.interrupts, Now: time.Now}
		ended <- Run(context.Background(), sys, append([]string{"--home", w.home}, args...))
	}()
	for !strings.Contains(stderr.String(), said) {
		select {
		case code := <-ended:
			w.t.Fatalf("it ended with %d: %s", code, stderr)
		case <-time.After(time.Millisecond):
		}
	}
	return stderr, ended
}

func TestFollowPrintsStderrWhileTheProgramRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Break("GetLogs", 1)
	stderr, done := w.begin("one\ntwo\n", "run", "wasm", w.script("err one", "err two", "hang"), "--follow")
	w.interrupts <- os.Interrupt
	if code := <-done; code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	if n := strings.Count(stderr.String(), "one\n"); n != 1 {
		t.Errorf("a line was printed %d times: %q", n, stderr)
	}
}

func TestRunSaysWhyNobodyHasTheTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, done := w.begin("shallot: the task waits for a provider: none of 3 known providers qualifies (task ", "run", "wasm", w.script("nobody none of 3 known providers qualifies"))
	w.interrupts <- os.Interrupt
	if code := <-done; code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
}

func TestCtrlCCancelsTheTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	done := make(chan result, 1)
	app := w.script("hang")
	go func() { done <- w.run("run", "wasm", app) }()
	w.node.AwaitTask(t.Context(), "RUNNING")
	w.interrupts <- os.Interrupt
	r := <-done
	r.want(t, exitInterrupted, "", "Ctrl-C again leaves at once")
	if tasks := w.node.Tasks(); tasks[0].GetState() != "CANCELLED" || w.node.Calls("CancelTask") != 1 {
		t.Errorf("the task is %s after %d calls", tasks[0].GetState(), w.node.Calls("CancelTask"))
	}
}

func TestSecondCtrlCLeavesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stderr, done := w.begin("here\n", "run", "wasm", w.script("err here", "hang"), "--follow") // it knows of the task
	w.stop()                                                                                   // the node cannot answer the cancel
	w.interrupts <- os.Interrupt
	w.interrupts <- os.Interrupt
	if code, id := <-done, w.node.Tasks()[0].GetId(); code != exitInterrupted || !strings.Contains(stderr.String(), "left task "+id) {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

// Who cannot press Ctrl-C again, such as a script that was ended, is not kept waiting for a node that is away.
func TestCtrlCWhileTheNodeIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stderr, done := w.begin("here\n", "run", "wasm", w.script("err here", "hang"), "--follow")
	w.stop()
	w.interrupts <- os.Interrupt
	if code, id := <-done, w.node.Tasks()[0].GetId(); code != exitInterrupted || !strings.Contains(stderr.String(), "cannot cancel the task") || !strings.Contains(stderr.String(), "left task "+id) {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

// Files can be large, and the node may be away: Ctrl-C ends their fetching, and nothing is left of them.
func TestCtrlCWhileFilesAreFetched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.Break("GetResult", 1<<30)
	parent := t.TempDir()
	done := make(chan result, 1)
	app := w.script("file a " + strings.Repeat("x", 1000))
	go func() { done <- w.run("run", "wasm", app, "--output-dir", filepath.Join(parent, "out")) }()
	for w.node.Calls("GetResult") < 2 {
		select {
		case r := <-done:
			t.Fatalf("it ended with %d: %s", r.code, r.stderr)
		case <-time.After(time.Millisecond):
		}
	}
	w.interrupts <- os.Interrupt
	(<-done).want(t, exitInterrupted, "", "fetches what it gave")
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestCtrlCWhileReadingStdin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer wr.Close()
	defer r.Close()
	w.stdin = r
	w.interrupts <- os.Interrupt
	w.run("run", "wasm", w.script("stdin"), "--stdin", "-").want(t, exitInterrupted, "", "interrupted")
}

func TestCtrlCEndsOtherCommandsQuietly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("run", "wasm", w.script("hang"), "--detach")
	w.interrupts <- os.Interrupt
	r := w.run("task", "watch", w.node.Tasks()[0].GetId())
	if r.code != exitInterrupted || r.stderr != "shallot: interrupted\n" {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
}

func TestRunOverADirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "data")
	big := strings.Repeat("x", 300_000)
	for name, text := range map[string]string{"a.txt": "a", "sub/b.txt": "b", "sub/deep/.hidden": "h", "big": big} {
		plant(t, filepath.Join(dir, name), text)
	}
	if err := errors.Join(os.Symlink("sub/b.txt", filepath.Join(dir, "link")), os.MkdirAll(filepath.Join(dir, "empty", "none"), 0o700)); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "deep", "out")
	app := w.script("out done", "file o.txt one", "file sub/.p two", "file sub/q/empty ", "exit 2")
	w.run("run", "wasm", app, "--input", dir, "--input", dir+":other", "--input", dir+"/sub:.", "--input", w.file("w.txt", "w")+":words", "--output-dir", out).
		want(t, 2, "done\n", "directories without files are left out (1)")
	got := map[string]string{}
	for _, in := range w.node.Spec(w.node.Tasks()[0].GetId()).GetWasm().GetInputs() {
		got[in.GetPath()] = string(w.node.Uploaded(in.GetContent()))
	}
	want := map[string]string{"b.txt": "b", "deep/.hidden": "h", "words": "w"}
	for _, d := range []string{"data/", "other/"} {
		want[d+"a.txt"], want[d+"sub/b.txt"], want[d+"sub/deep/.hidden"], want[d+"big"], want[d+"link"] = "a", "b", "h", big, "b"
	}
	if !maps.Equal(got, want) {
		t.Errorf("the inputs are %v", slices.Sorted(maps.Keys(got)))
	}
	for name, text := range map[string]string{"o.txt": "one", "sub/.p": "two", "sub/q/empty": ""} {
		if b, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(b) != text {
			t.Errorf("%s is %q, %v", name, b, err)
		}
	}
	id := w.node.Tasks()[0].GetId()
	w.node.Break("GetResult", 1)
	w.run("task", "result", id, "--output-dir", out+"2").want(t, 0, "", "3 files are in "+out+"2")
	if v := w.run("task", "result", id, "--output-dir", out+"3", "--output", "json").json(t); v["output_dir"] != out+"3" || len(v["files"].([]any)) != 3 {
		t.Error(v)
	}
	w.run("task", "result", id, "--output-dir", out).want(t, exitUsage, "", "is not empty")
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(out), ".*")); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// plant makes a file, or a directory where the path ends with a slash.
func plant(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(path[:strings.LastIndex(path, "/")], 0o700); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(path, "/") {
		return
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The node's own check is one that a provider cannot get past; this one does not trust it.
func TestHostileResultsWriteNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, bad := range []string{"../x", "/tmp/x", "a/../../x", ".", "a/", `"a\x1b[2J"`, `"a\x00"`, strings.Repeat("n", 256), strings.Repeat("d/", 80) + "f", "good.txt", "good.txt/x"} {
		out := filepath.Join(t.TempDir(), "out")
		w.run("run", "wasm", w.script("file good.txt fine", "file "+bad+" bad"), "--output-dir", out).want(t, exitRun, "", "nothing was written to "+out)
		if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) != 0 {
			t.Errorf("%d: %v is there, %v", i, left, err)
		}
	}
}

func TestDirectoriesThatCannotBeSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.script("out x")
	out, dir := t.TempDir(), t.TempDir()
	link, pipe, many, full := filepath.Join(dir, "link"), filepath.Join(dir, "pipe"), filepath.Join(dir, "many"), filepath.Join(dir, "full")
	plant(t, link+"/", "")
	plant(t, pipe+"/", "")
	plant(t, many+"/", "")
	plant(t, filepath.Join(full, "f"), "")
	plant(t, filepath.Join(dir, "bad", "a\nb"), "")
	if err := errors.Join(os.Symlink("/etc/passwd", filepath.Join(link, "l")), syscall.Mkfifo(filepath.Join(pipe, "p"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for i := range 1001 {
		plant(t, filepath.Join(many, strconv.Itoa(i)), "")
	}
	for says, args := range map[string][]string{
		`"l" in the directory`:          {"--input", link},
		"(a pipe)":                      {"--input", pipe},
		"more than 1000 files":          {"--input", many},
		"would both be /in/full/f":      {"--input", full, "--input", full + ":full"},
		"a file, and a directory":       {"--input", full, "--input", filepath.Join(full, "f") + ":full"},
		`would be called "../x"`:        {"--input", full + ":../x"},
		`would be called ".", and`:      {"--input", filepath.Join(full, "f") + ":."},
		"control character":             {"--input", filepath.Join(dir, "bad")},
		"cannot read --input /nowhere:": {"--input", "/nowhere"},
		"cannot be replaced":            {"--output-dir", "."},
		full + " is not empty":          {"--output-dir", full},
		"--detach and --output-dir":     {"--output-dir", out, "--detach"},
		"not a directory":               {"--output-dir", filepath.Join(full, "f")},
	} {
		w.run(append([]string{"run", "wasm", app}, args...)...).want(t, exitRun, "", says)
	}
	if n := len(w.node.Tasks()); n != 0 {
		t.Errorf("%d tasks were made", n)
	}
}
