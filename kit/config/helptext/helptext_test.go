package helptext_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/config/helptext"
)

// TestItIsReadAsItWasWritten: what package config prints comes back, signs that take more than a byte among it.
func TestItIsReadAsItWasWritten(t *testing.T) {
	target := &struct {
		config.Common
		Name string `koanf:"name_of_it" help:"how it is called: “so”, or otherwise"`
		Long bool   `koanf:"long"`
	}{Name: "Zwiebel · Schalotte"}
	var out bytes.Buffer
	if _, err := config.Load("task", target, []string{"--help"}, config.WithStdout(&out), config.Does("keeps tasks: all of them")); !errors.Is(err, config.ErrHelp) {
		t.Fatal(err)
	}
	help, err := helptext.Parse(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if help.Program != "shallot-task" || help.Does != "keeps tasks: all of them" {
		t.Errorf("it is %q, and %q", help.Program, help.Does)
	}
	for _, want := range []helptext.Setting{
		{"--name_of_it", "Zwiebel · Schalotte", "SHALLOT_TASK_NAME_OF_IT", "how it is called: “so”, or otherwise"},
		{"--long", "false", "SHALLOT_TASK_LONG", ""},
		{"--log.level", "info", "SHALLOT_TASK_LOG_LEVEL", "debug, info, warn or error"},
		{"--health", "", "", "ask the process that runs with these settings whether it is ready, and end with 0 when it is"},
	} {
		if !slices.Contains(help.Settings, want) {
			t.Errorf("%+v is not among %+v", want, help.Settings)
		}
	}
}

func TestOtherTextsAreErrors(t *testing.T) {
	for _, text := range []string{"", "shallot-task: it\n", "shallot-task: it.\n\nFLAG  DEFAULT\n--a  b\n", "shallot-task: it.\n\nFLAG  DEFAULT  ENVIRONMENT  WHAT IT IS\nshort\n",
		"shallot-task: it.\n\nFLAG  DEFAULT  ENVIRONMENT  WHAT IT IS\n"} {
		if got, err := helptext.Parse(text); err == nil {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}
