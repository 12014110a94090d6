package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// pins is a repository that is away for a while.
type pins struct {
	Repository
	away  int // calls that fail
	there []Pinned
	let   []string
}

func (p *pins) Pinned(context.Context, string, int) ([]Pinned, error) {
	if p.away--; p.away >= 0 {
		return nil, errors.New("away")
	}
	return p.there, nil
}

func (p *pins) Unpin(_ context.Context, some ...Pinned) error {
	for _, pin := range some {
		p.let = append(p.let, pin.CID)
	}
	return nil
}

func leftovers(p *pins) *Leftovers {
	return &Leftovers{Kind: "task:", Repository: p, Log: slog.New(slog.DiscardHandler), Wanted: func(_ context.Context, id, cid string) (bool, error) { return id+cid == "1a", nil }}
}

// What is wanted stays, and what this life has put, also while the repository was away.
func TestLeftoversAreLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pins{away: 3, there: []Pinned{{"a", "task:1"}, {"b", "task:1"}, {"c", "task:2"}, {"d", "task:3"}}}
		l := leftovers(p)
		if owner := l.Owner("3"); owner != "task:3" {
			t.Errorf("the owner is %s", owner)
		}
		begin := time.Now()
		l.Run(t.Context())
		if fmt.Sprint(p.let) != "[b c]" || time.Since(begin) != 3*leftoversRetry {
			t.Errorf("%v were let go after %v", p.let, time.Since(begin))
		}
	})
}

// What is remembered is bounded: rather than let go what this life has put, nothing is.
func TestLeftoversAreGivenUp(t *testing.T) {
	p := &pins{there: []Pinned{{"x", "task:0"}, {"y", "task:unknown"}}}
	l := leftovers(p)
	for i := range 2 * leftoversMost {
		l.Owner(fmt.Sprint(i))
	}
	l.Run(t.Context())
	if len(p.let) > 0 || len(l.mine) > 0 {
		t.Errorf("%v were let go, %d ids are remembered", p.let, len(l.mine))
	}
}
