package executorcheck_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/executorcheck"
	"github.com/shallot-net/shallot/cli/internal/executorcheck/executorchecktest"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
)

type server = executorchecktest.Server

// check returns the verdicts by check.
func check(t *testing.T, s *server, change func(*executorcheck.Config)) (map[string]executorcheck.Result, bool) {
	t.Helper()
	cfg := executorcheck.Config{Address: executorchecktest.Start(t, s), Options: []byte("good"), Slow: []byte("slow"), Bad: [][]byte{[]byte("bad")},
		Parts: []executorcheck.Part{{Name: "stdin", Data: make([]byte, 100_000)}, {Name: "input:a", Data: []byte("a")}}, Timeout: 10 * time.Second}
	if change != nil {
		change(&cfg)
	}
	all := map[string]executorcheck.Result{}
	good, err := executorcheck.Run(t.Context(), cfg, func(r executorcheck.Result) { all[r.Check] = r })
	if err != nil {
		t.Fatal(err)
	}
	return all, good
}

func TestAGoodExecutorPasses(t *testing.T) {
	t.Parallel()
	all, good := check(t, &server{}, nil)
	for name, r := range all {
		want := executorcheck.Pass
		if name == "health" {
			want = executorcheck.Skipped
		}
		if r.Verdict != want || r.Detail == "" {
			t.Errorf("%s: %s, %s", name, r.Verdict, r.Detail)
		}
	}
	if !good || len(all) != 9 {
		t.Errorf("good is %v after %d checks", good, len(all))
	}
	// Without payloads: what cannot be checked is skipped.
	all, good = check(t, &server{Refuses: true}, func(c *executorcheck.Config) { c.Options, c.Slow, c.Bad, c.Parts = nil, nil, nil, nil })
	if !good || all["cancel in the middle"].Verdict != executorcheck.Pass || all["validate bad payloads"].Verdict != executorcheck.Skipped || all["parts in chunks"].Verdict != executorcheck.Pass {
		t.Errorf("%v %+v", good, all)
	}
}

func TestEachMistakeIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		server *server
		check  string
		says   string
	}{
		"a built-in type":         {&server{About: &executorv1.DescribeResponse{Type: "wasm"}}, "describe", "built in"},
		"a type in capitals":      {&server{About: &executorv1.DescribeResponse{Type: "OCR"}}, "describe", "a letter first"},
		"a version in colours":    {&server{About: &executorv1.DescribeResponse{Type: "ocr", Version: "\x1b[0m"}}, "describe", "printable"},
		"takes everything":        {&server{Lenient: true}, "validate bad payloads", "accepted"},
		"crashes":                 {&server{Crashes: true}, "run", "it crashed"},
		"no Finish":               {&server{NoFinish: true}, "run", "without a Finish"},
		"goes on":                 {&server{After: true}, "run", "follows the Finish"},
		"writes outside":          {&server{Outside: true}, "run", "relative path"},
		"a reason in words":       {&server{Reason: "did not work"}, "run", "UPPER_SNAKE"},
		"progress without number": {&server{NaN: true}, "run", "from 0 to 1"},
		"forgets":                 {&server{Forgetful: true}, "same task and attempt again", "exit code 1"},
		"takes no chunks":         {&server{InlineOnly: true}, "parts in chunks", "chunks"},
		"deaf":                    {&server{Deaf: true}, "cancel in the middle", "cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, good := check(t, c.server, nil)
			if r := all[c.check]; good || r.Verdict != executorcheck.Fail || !strings.Contains(r.Detail, c.says) {
				t.Errorf("good is %v; %+v, want a failure that says %q", good, r, c.says)
			}
		})
	}
}

func TestWhereThereIsNothing(t *testing.T) {
	t.Parallel()
	var got []executorcheck.Result
	good, err := executorcheck.Run(t.Context(), executorcheck.Config{Address: "unix:" + t.TempDir() + "/none", Timeout: time.Second}, func(r executorcheck.Result) { got = append(got, r) })
	if err != nil || good || got[0].Verdict != executorcheck.Fail || !strings.Contains(got[0].Detail, "cannot be reached") || got[1].Verdict != executorcheck.Skipped {
		t.Errorf("%v, %v, %+v", good, err, got)
	}
	if _, err := executorcheck.Run(t.Context(), executorcheck.Config{Address: "192.0.2.1:7000", Timeout: time.Second}, func(executorcheck.Result) {}); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("an address far away: %v", err)
	}
}
