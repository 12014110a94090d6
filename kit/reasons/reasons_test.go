package reasons

import (
	"slices"
	"strings"
	"testing"
)

func TestTheListsAreReadAndSorted(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]func() ([]Entry, error){"errors.txt": Errors, "tasks.txt": Ends} {
		list, err := read()
		if err != nil || len(list) < 20 {
			t.Errorf("%s: %d entries, %v", name, len(list), err)
		}
		if !slices.IsSortedFunc(list, func(a, b Entry) int { return strings.Compare(a.Reason, b.Reason) }) {
			t.Errorf("%s is not sorted", name)
		}
		for i := 1; i < len(list); i++ {
			if list[i].Reason == list[i-1].Reason {
				t.Errorf("%s has %s twice", name, list[i].Reason)
			}
		}
	}
	chosen, considered, err := Placement()
	if err != nil || len(chosen) == 0 || len(considered) == 0 {
		t.Errorf("placement.txt: %d and %d codes, %v", len(chosen), len(considered), err)
	}
}

func TestALineThatIsNoneIsNamed(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"A_REASON | means\n", "a reason | means | mends\n", "A_REASON |  | mends\n", "# fine\n\nA | b | c | d\n"} {
		if _, err := table("some.txt", text); err == nil || !strings.Contains(err.Error(), "some.txt:") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestWordsOfAnEnd(t *testing.T) {
	t.Parallel()
	if e, known := End("TIME_LIMIT"); !known || !strings.Contains(e.Mends, "--timeout") {
		t.Errorf("TIME_LIMIT is %+v, %t", e, known)
	}
	if e, known := End("LICENCE_EXPIRED"); known || e != (Entry{}) {
		t.Errorf("an executor's own reason is %+v", e)
	}
	if Chosen("LESS_BUSY") == "" || Considered("WRONG_TYPE") == "" || Chosen("WRONG_TYPE") != "" || Considered("") != "" {
		t.Error("a code of a placement has the words of another, or none")
	}
}
