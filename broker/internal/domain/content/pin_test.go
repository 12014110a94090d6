package content

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestNewPin(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, c := range []struct {
		owner string
		keep  time.Duration
		field string // that is refused
	}{
		{"user", 0, ""}, {"task:0123", time.Hour, ""}, {"ü", MaxKeep, ""}, {strings.Repeat("x", MaxOwner), 0, ""},
		{"", 0, "owner"}, {strings.Repeat("x", MaxOwner+1), 0, "owner"}, {"a\x00b", 0, "owner"}, {"a\nb", 0, "owner"}, {"\xff", 0, "owner"},
		{"user", -1, "keep"}, {"user", MaxKeep + 1, "keep"},
	} {
		p, err := NewPin("cid", c.owner, c.keep, now)
		var invalid *InvalidError
		if c.field == "" {
			if err != nil || p.ExpiresAt.IsZero() != (c.keep == 0) {
				t.Errorf("%q for %v: %+v, %v", c.owner, c.keep, p, err)
			}
		} else if !errors.As(err, &invalid) || invalid.Field != c.field {
			t.Errorf("%q for %v: %v", c.owner, c.keep, err)
		}
	}
	p, _ := NewPin("cid", "user", time.Second, now)
	if p.Expired(now) || !p.Expired(now.Add(time.Second)) || (Pin{}).Expired(now) {
		t.Error("a pin ends when its time is up, and one without an end never")
	}
}

func TestReaders(t *testing.T) {
	many := make([]string, MaxReaders+1)
	for i := range many {
		many[i] = "peer"
	}
	for name, c := range map[string]struct {
		persona string
		readers []string
		field   string // that is refused
	}{
		"none":            {"", nil, ""},
		"as many as may":  {"p", many[1:], ""},
		"one more":        {"p", many, "readers"},
		"an empty one":    {"p", []string{"a", ""}, "readers"},
		"a very long one": {"p", []string{strings.Repeat("x", MaxPeerID+1)}, "readers"},
		"a long persona":  {strings.Repeat("x", MaxPersona+1), []string{"a"}, "persona"},
		"the own persona": {"", []string{"a"}, ""},
		"a longest one":   {strings.Repeat("x", MaxPersona), []string{strings.Repeat("x", MaxPeerID)}, ""},
	} {
		p, err := Pin{CID: "cid", Owner: "o"}.GrantedTo(c.persona, c.readers)
		var invalid *InvalidError
		if c.field == "" {
			if err != nil || len(p.Readers) != len(c.readers) || len(c.readers) > 0 && p.Persona != c.persona || p.CID != "cid" {
				t.Errorf("%s: %+v, %v", name, p, err)
			}
		} else if !errors.As(err, &invalid) || invalid.Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}
