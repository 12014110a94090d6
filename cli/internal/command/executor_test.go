package command

import (
	"strings"
	"testing"

	"github.com/shallot-net/shallot/cli/internal/executorcheck/executorchecktest"
)

func TestExecutorCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := executorchecktest.Start(t, &executorchecktest.Server{})
	args := []string{"--payload", "good", "--bad-payload", "bad", "--slow-payload", "@" + w.file("slow", "slow"), "--stdin", w.file("words", "some words"), "--input", w.file("a.txt", "a")}
	r := w.bare(append([]string{"executor", "check", good}, args...)...)
	if r.code != 0 || !strings.Contains(r.stdout, "cancel in the middle") || strings.Contains(r.stdout, "fail") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	bad := executorchecktest.Start(t, &executorchecktest.Server{After: true})
	r = w.bare(append([]string{"--output", "json", "executor", "check", bad}, args...)...)
	v := r.json(t)
	if r.code != exitFailed || v["ok"] != false || len(v["checks"].([]any)) != 9 {
		t.Errorf("exit code %d: %v", r.code, v)
	}
	w.bare("executor", "check").want(t, exitUsage, "", "ADDRESS is missing")
	w.bare("executor", "check", "192.0.2.1:7000").want(t, exitUsage, "", "loopback")
	w.bare("executor", "check", good, "--stdin", "/nowhere/words").want(t, exitFailed, "", "/nowhere/words")
	w.bare("executor", "chek").want(t, exitUsage, "", `did you mean "check"?`)
}

func TestRunOfSomebodysOwnType(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("run", "grep", "--option", "beta", "--stdin", w.file("words", "alpha"), "--input", w.file("big", strings.Repeat("x", 300_000)), "--detach", "--label", "a=b").
		want(t, 0, w.node.Tasks()[0].GetId()+"\n", "")
	s := w.node.Spec(w.node.Tasks()[0].GetId())
	x := s.GetExternal()
	if s.GetType() != "grep" || string(x.GetOptions()) != "beta" || len(x.GetParts()) != 2 || s.GetLabels()["a"] != "b" {
		t.Fatalf("the spec is %v", s)
	}
	if p := x.GetParts(); p[0].GetPath() != "stdin" || string(p[0].GetContent().GetInline()) != "alpha" || p[1].GetPath() != "input:big" || p[1].GetContent().GetUploadId() == "" {
		t.Errorf("the parts are %v", p)
	}
	w.run("run", "grep", "--option", "@"+w.file("options", "from a file"), "--detach").want(t, 0, w.node.Tasks()[1].GetId()+"\n", "")
	w.run("run", "grep", "--option", "@/nowhere/options").want(t, exitRun, "", "/nowhere/options")
	w.run("run", "grep", "--option", "@"+w.file("options", strings.Repeat("x", 2<<20))).want(t, exitRun, "", "1024 KiB")
	w.run("run", "wsam", "app.wasm").want(t, exitRun, "", `did you mean "wasm"?`)
	w.run("run", "Grep").want(t, exitRun, "", "Grep")
}
