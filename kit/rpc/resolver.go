package rpc

import (
	"sync"
	"time"

	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/dns"
)

// lookEvery is how often the addresses behind a name are looked up, so that a new replica gets calls within a minute. gRPC's own resolver looks again only when a
// connection breaks, and never more often than lookAtMost.
const (
	lookEvery  = 10 * time.Second
	lookAtMost = 5 * time.Second
)

func init() { dns.SetMinResolutionInterval(lookAtMost) }

// What clients look addresses up with; tests have another.
var pollingBuilder = func() resolver.Builder {
	return &polling{Builder: resolver.Get("dns"), every: lookEvery}
}

// polling is a resolver that is asked again and again.
type polling struct {
	resolver.Builder
	every time.Duration
}

func (p *polling) Build(target resolver.Target, cc resolver.ClientConn, opts resolver.BuildOptions) (resolver.Resolver, error) {
	inner, err := p.Builder.Build(target, cc, opts)
	if err != nil {
		return nil, err
	}
	r := &polled{Resolver: inner, stop: make(chan struct{})}
	go r.run(p.every)
	return r, nil
}

type polled struct {
	resolver.Resolver
	once sync.Once
	stop chan struct{}
}

func (r *polled) run(every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.ResolveNow(resolver.ResolveNowOptions{})
		case <-r.stop:
			return
		}
	}
}

func (r *polled) Close() {
	r.once.Do(func() { close(r.stop) })
	r.Resolver.Close()
}
