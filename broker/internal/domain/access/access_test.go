package access_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/domain/access"
)

func TestAdmits(t *testing.T) {
	for name, c := range map[string]struct {
		lists access.Lists
		want  string // of a, b and c, who is let in
	}{
		"nothing said":         {access.Lists{}, "abc"},
		"one denied":           {access.New(nil, []string{"b"}), "ac"},
		"one allowed":          {access.New([]string{"b"}, nil), "b"},
		"both":                 {access.New([]string{"a", "b"}, []string{"b"}), "a"},
		"an emptied list":      {access.Lists{Restricted: true}, ""},
		"two sources":          {access.New([]string{"a"}, nil).With(access.New([]string{"b"}, []string{"c"})), "ab"},
		"denied by the second": {access.New([]string{"a"}, nil).With(access.New(nil, []string{"a"})), ""},
	} {
		got := ""
		for _, id := range []string{"a", "b", "c"} {
			if c.lists.Admits(id) {
				got += id
			}
		}
		if got != c.want {
			t.Errorf("%s: %q is let in, want %q", name, got, c.want)
		}
	}
}

func canonical(id string) (string, error) {
	if strings.ContainsAny(id, " /") {
		return "", errors.New("no")
	}
	return strings.ToUpper(id), nil
}

func TestParse(t *testing.T) {
	got, err := access.Parse([]byte("# friends\n a \n\nb# their cluster\r\n"), canonical)
	if err != nil || fmt.Sprint(got) != "[A B]" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := access.Parse([]byte("a\nb c\n"), canonical); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a line that is no peer: %v", err)
	}
	for name, data := range map[string]string{"many": strings.Repeat("a\n", access.MaxPeers+1), "long": strings.Repeat("a", access.MaxFile), "longer": strings.Repeat("\n", access.MaxFile+1)} {
		if _, err := access.Parse([]byte(data), canonical); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
