package repository

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestSessionsRestAfterOneThatWasBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rests
		if left := r.left(); left > 0 {
			t.Errorf("the first waits for %v", left)
		}
		ctx, cancel := context.WithCancel(t.Context())
		l := &line{ctx: ctx}
		r.begin(l)
		if left := r.left(); left > 0 {
			t.Errorf("a second one beside it waits for %v", left)
		}
		l.wanted.Add(1)
		cancel()
		if left := r.left(); left != wayRest {
			t.Errorf("the next one after it was cut waits for %v", left)
		}
		<-time.After(wayRest / 2)
		r.broken()
		l.wanted.Add(-1)
		r.end(l)
		<-time.After(wayRest / 2)
		if left := r.left(); left != wayRest/2 {
			t.Errorf("half the time after it has said so %v are left", left)
		}
		<-time.After(wayRest)
		other := &line{ctx: ctx} // over, with nothing wanted
		r.begin(other)
		if left := r.left(); left > 0 {
			t.Errorf("after one that had all it waits for %v", left)
		}
	})
}
