package tor_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/tor"
)

// lastLines keeps the end of a log.
type lastLines struct {
	mu   sync.Mutex
	last []string
}

func (l *lastLines) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last = append(l.last, s); len(l.last) > 60 {
		l.last = l.last[1:]
	}
}

func (l *lastLines) Write(p []byte) (int, error) {
	l.add(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "\n")
}

func TestPrivateNetwork(t *testing.T) {
	p := needTor(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := shortDir(t)
	var log lastLines
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log.String())
		}
	})
	began := time.Now()
	net, err := tor.StartPrivate(ctx, tor.PrivateConfig{Dir: dir, Program: p, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	t.Logf("listens after %v", time.Since(began).Round(10*time.Millisecond))
	err = net.Ready(ctx, func(percent int, waiting string) {
		t.Logf("%5.1f s: %3d %% %s", time.Since(began).Seconds(), percent, waiting)
	})
	if err != nil {
		t.Fatal(err)
	}
	one := startClient(ctx, t, p, net)
	two := startClient(ctx, t, p, net)
	addr := one.addEcho(t)
	two.reach(ctx, t, addr)
}
