package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// say is a stand-in for a program that answers --help with a text.
func say(t *testing.T, dir, program, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n[ \"$*\" = --help ] || exit 1\ncat <<'EOF'\n"+text+"EOF\n"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
}

const table = `

Each value comes from somewhere.

FLAG            DEFAULT    ENVIRONMENT         WHAT IT IS
--config FILE              SHALLOT_X_CONFIG    YAML
--health                                       ask whether it is ready
--slots         -1         SHALLOT_X_SLOTS     how many, of <all> at *once*
--quiet         false      SHALLOT_X_QUIET     say nothing
`

func TestPagesOfProcesses(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	programs, dir := t.TempDir(), t.TempDir()
	for _, p := range processes {
		say(t, programs, "shallot-"+p, "shallot-"+p+": does what "+p+" does."+table)
	}
	if err := pages(t.Context(), programs, dir, "1.2.3"); err == nil || !strings.Contains(err.Error(), executor) {
		t.Errorf("without the executor: %v", err)
	}
	say(t, programs, executor, executor+": runs programs.\n\n  -root directory\n    \tits own\n")
	if err := pages(t.Context(), programs, dir, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	task := read("shallot-task.8")
	for _, want := range []string{".TH \"SHALLOT-TASK\" \"8\" \"Nov 2023\" \"shallot 1.2.3\"", "shallot-task \\- does what task does\n", "\\fB--config\\fP \\fIFILE\\fP", "\\fB--health\\fP\n",
		"\\fB--slots\\fP \\fIVALUE\\fP\nhow many, of <all> at *once*\\&. Default: -1. Variable: SHALLOT_X_SLOTS.", "\\fB--quiet\\fP\n", "HOME/run/task.sock", "\\fBshallot-node\\fP(8)", "\\fB" + executor + "\\fP(8)"} {
		if !strings.Contains(task, want) {
			t.Errorf("the page of task has no %q:\n%s", want, task)
		}
	}
	if strings.Contains(task, "shallot-task\\fP(8)") {
		t.Error("the page of task points at itself")
	}
	if got := read(executor + ".8"); !strings.Contains(got, "  -root directory\n") || !strings.Contains(got, "shallot-executor-wasm \\- runs programs\n") {
		t.Errorf("the page of the executor is %s", got)
	}
}
