// Package traces runs real nodes whose spans go to collectors of the test, and looks at what they say, and that no trace leaves its node.
package traces

import (
	"bytes"
	"context"
	"encoding/hex"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// span is one of a process.
type span struct {
	*tracev1.Span
	process string
}

func (s *span) attribute(key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// collector keeps what one node sends over OTLP.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []*span
	raw   [][]byte
	news  chan struct{}
}

// collect serves at a Unix socket until the test ends.
func collect(t *testing.T, socket string) *collector {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{news: make(chan struct{}, 1)}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return c
}

// Export implements OTLP.
func (c *collector) Export(_ context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	raw, err := proto.Marshal(r)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, raw)
	for _, rs := range r.GetResourceSpans() {
		process := ""
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				process = strings.TrimPrefix(a.GetValue().GetStringValue(), "shallot-")
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans = append(c.spans, &span{s, process})
			}
		}
	}
	select {
	case c.news <- struct{}{}:
	default:
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// all is what has come so far.
func (c *collector) all() []*span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*span(nil), c.spans...)
}

func (c *collector) find(ok func(*span) bool) *span {
	for _, s := range c.all() {
		if ok(s) {
			return s
		}
	}
	return nil
}

// wait waits until a span has come.
func (c *collector) wait(t *testing.T, what string, ok func(*span) bool) (found *span) {
	t.Helper()
	c.until(t, what, func([]*span) bool {
		found = c.find(ok)
		return found != nil
	})
	return found
}

// until waits until what has come is as it should be.
func (c *collector) until(t *testing.T, what string, ok func([]*span) bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for !ok(c.all()) {
		select {
		case <-c.news:
		case <-deadline.C:
			for _, s := range c.all() {
				t.Logf("%s: %s %s", s.process, s.GetName(), s.attribute("shallot.event.type"))
			}
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// traceIDs are those of all spans, as bytes and in hex.
func (c *collector) traceIDs() (ids [][]byte) {
	seen := map[string]bool{}
	for _, s := range c.all() {
		if id := string(s.GetTraceId()); !seen[id] {
			seen[id] = true
			ids = append(ids, []byte(id), []byte(hex.EncodeToString([]byte(id))))
		}
	}
	return ids
}

// says tells whether anything that came has these bytes.
func (c *collector) says(b string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.raw {
		if bytes.Contains(r, []byte(b)) {
			return true
		}
	}
	return false
}
