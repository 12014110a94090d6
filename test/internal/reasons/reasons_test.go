package reasons

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shallot-net/shallot/kit/reasons"
)

const top = "../../.."

func TestEveryReasonIsExplained(t *testing.T) {
	uses, err := Collect(top)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := reasons.Errors()
	if err != nil {
		t.Fatal(err)
	}
	unexplained, unused := Missing(entries, uses)
	for _, r := range unexplained {
		t.Errorf("%s (%s) is not explained: give it a line in kit/reasons/errors.txt", r, uses[r][0].Where)
	}
	for _, r := range unused {
		t.Errorf("nothing gives %s any more: take its line out of kit/reasons/errors.txt", r)
	}
	want, err := Page(uses)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(top, "docs", "reference", "errors.md"))
	if err != nil || !bytes.Equal(page, want) {
		t.Errorf("docs/reference/errors.md is out of date, %v: make reference, and commit it", err)
	}
}

func TestEveryEndOfATaskIsExplained(t *testing.T) {
	given, err := CollectWords(top)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := reasons.Ends()
	if err != nil {
		t.Fatal(err)
	}
	chosen, considered, err := reasons.Placement()
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, e := range ends {
		explained = append(explained, e.Reason)
	}
	compare(t, "kit/reasons/tasks.txt", given.Ends, explained)
	for _, l := range []struct {
		given map[string]bool
		list  []reasons.Code
	}{{given.Chosen, chosen}, {given.Considered, considered}} {
		var explained []string
		for _, c := range l.list {
			explained = append(explained, c.Code)
		}
		compare(t, "kit/reasons/placement.txt", l.given, explained)
	}
}

func compare(t *testing.T, name string, given map[string]bool, explained []string) {
	t.Helper()
	for _, r := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(explained, r) {
			t.Errorf("%s is not explained: give it a line in %s", r, name)
		}
	}
	for _, r := range explained {
		if !given[r] {
			t.Errorf("nothing gives %s any more: take its line out of %s", r, name)
		}
	}
}

// TestCollect: literals, constants, functions that hand a reason on, and errors that are written out.
func TestCollect(t *testing.T) {
	dir := t.TempDir()
	for path, source := range map[string]string{
		"kit/fault/fault.go": "package fault\nconst ReasonInternal = \"INTERNAL\"\nfunc From() *Error { return &Error{Code: codes.Internal, Reason: ReasonInternal} }\n",
		"broker/a/a.go": `package a
import "github.com/shallot-net/shallot/kit/fault"
import "google.golang.org/grpc/codes"
const reason = "A_CONSTANT"
func refuse(what int, reason string) error { return fault.Unavailable(reason, "no") }
func again(reason string) error { return refuse(1, reason) }
var (
	a = fault.NotFound("A_LITERAL", "x")
	b = fault.New(codes.DataLoss, reason, "x")
	c = again("HANDED_ON")
	d = other.NotFound("NOT_OURS", "x")
)
`,
		"broker/a/a_test.go":  "package a\nimport \"github.com/shallot-net/shallot/kit/fault\"\nvar e = fault.NotFound(\"OF_A_TEST\", \"x\")\n",
		"services/readme.md":  "",
		"gateway/readme.md":   "",
		"cli/internal/x/x.go": "package x\n",
	} {
		p := filepath.Join(dir, path)
		err := os.MkdirAll(filepath.Dir(p), 0o700)
		if err == nil {
			err = os.WriteFile(p, []byte(source), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	uses, err := Collect(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A_LITERAL": "NOT_FOUND", "A_CONSTANT": "DATA_LOSS", "HANDED_ON": "UNAVAILABLE", "INTERNAL": "INTERNAL"}
	for r, code := range want {
		if len(uses[r]) != 1 || uses[r][0].Code != code {
			t.Errorf("%s is %v", r, uses[r])
		}
	}
	if len(uses) != len(want) {
		t.Errorf("found were %v", uses)
	}
}
