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
