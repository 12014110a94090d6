package compose

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// load is a stream of small tasks through the consumer's gateway, each seen through to its result.
type load struct {
	p    *project
	g    *gateway
	name string
	stop func()
	wg   sync.WaitGroup

	mu       sync.Mutex
	outcomes map[string]string // by request
	slowest  time.Duration
}

// load starts so many workers; end stops them.
func (p *project) load(ctx context.Context, name string, workers int) *load {
	p.t.Helper()
	stopped := make(chan struct{})
	l := &load{p: p, g: p.gateway("consumer-gateway"), name: name, stop: sync.OnceFunc(func() { close(stopped) }), outcomes: map[string]string{}}
	for worker := range workers {
		l.wg.Go(func() { l.work(ctx, worker, stopped) })
	}
	// Where the test gives up before the end: a worker that fails after it would end the whole program, and nothing would be taken down.
	p.t.Cleanup(func() {
		l.stop()
		l.wg.Wait()
	})
	return l
}

func (l *load) work(ctx context.Context, worker int, stopped <-chan struct{}) {
	for n := 1; ; n++ {
		select {
		case <-stopped:
			return
		default:
		}
		request, begin := fmt.Sprintf("%s-%d-%d", l.name, worker, n), time.Now()
		_, got, err := l.g.sum(ctx, request, strconv.Itoa(n), "1")
		if err != nil || got != strconv.Itoa(n+1) {
			l.p.t.Errorf("%s: %q, %v", request, got, err)
			return
		}
		l.mu.Lock()
		l.outcomes[request] = got
		l.slowest = max(l.slowest, time.Since(begin))
		l.mu.Unlock()
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.outcomes)
}

// goesOn waits until so many more tasks have their outcome.
func (l *load) goesOn(ctx context.Context, what string, more int) {
	l.p.t.Helper()
	before := l.count()
	eventually(ctx, l.p.t, what+": tasks", func() bool { return l.count() >= before+more || l.p.t.Failed() })
}

// end stops the workers and compares what they saw with what the consumer has: each task once, completed, and no others of theirs.
func (l *load) end(ctx context.Context) {
	l.p.t.Helper()
	l.stop()
	l.wg.Wait()
	seen, attempts := map[string]int{}, 0
	for token := ""; ; {
		body, err := l.g.until(ctx, "GET", "/v1/tasks?page_size=100&page_token="+url.QueryEscape(token), nil, func([]byte) bool { return true })
		if err != nil {
			l.p.t.Fatal(err)
		}
		var page struct {
			Tasks []struct {
				State     string
				RequestID string `json:"request_id"`
				Attempts  int    `json:"attempts"`
			}
			NextPageToken string `json:"next_page_token"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			l.p.t.Fatal(err)
		}
		for _, k := range page.Tasks {
			if !strings.HasPrefix(k.RequestID, l.name+"-") {
				continue
			}
			seen[k.RequestID]++
			attempts += k.Attempts
			if k.State != "COMPLETED" {
				l.p.t.Errorf("%s is %s", k.RequestID, k.State)
			}
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	for request := range l.outcomes {
		if seen[request] != 1 {
			l.p.t.Errorf("%s is %d tasks", request, seen[request])
		}
	}
	if len(seen) != len(l.outcomes) || len(seen) == 0 {
		l.p.t.Errorf("%d tasks are listed, and %d were seen through", len(seen), len(l.outcomes))
	}
	l.p.t.Logf("%d tasks, one outcome each, in %d attempts; the slowest took %v", len(seen), attempts, l.slowest.Round(10*time.Millisecond))
}
