package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"time"

	"github.com/shallot-net/shallot/test/internal/dev"
)

// traffic is what the nodes of idle networks of several sizes say to each other once they know each other.
func (s *session) traffic(ctx context.Context) (figures []Figure, err error) {
	sizes, settle, over := []int{10, 30, 100}, 90*time.Second, 2*time.Minute
	if s.Quick {
		sizes, settle, over = []int{3}, 2*time.Second, 3*time.Second
	}
	first := 0.0
	for _, n := range sizes {
		f, err := s.talk(ctx, n, settle, over)
		if err != nil {
			return figures, err
		}
		if first == 0 {
			first = f.Ours
		} else { // as the logarithm of the network
			f = f.atMost(first*math.Log(float64(n))/math.Log(float64(sizes[0])), "log n")
		}
		figures = append(figures, f)
	}
	return figures, nil
}

func (s *session) talk(ctx context.Context, n int, settle, over time.Duration) (f Figure, err error) {
	net, err := dev.Start(ctx, dev.Config{Bin: s.Bin, Dir: filepath.Join(s.dir, fmt.Sprintf("traffic-%d", n)), Providers: n, Timeout: 15 * time.Minute})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, net.Stop()) }()
	if err := pause(ctx, settle); err != nil {
		return f, err
	}
	before, err := said(ctx, net)
	if err != nil {
		return f, err
	}
	begin := time.Now()
	if err := pause(ctx, over); err != nil {
		return f, err
	}
	after, err := said(ctx, net)
	if err != nil {
		return f, err
	}
	took := time.Since(begin).Minutes()
	f = Figure{Name: fmt.Sprintf("an idle network of %d providers, bytes a node", n), Unit: "KiB/min", Detail: map[string]float64{}}
	for kind, b := range after {
		each := (b - before[kind]) / took / float64(n) / 1024
		f.Detail[kind+", KiB/min"] = each
		f.Ours += each
	}
	return f, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// said is how many bytes all brokers have sent and received on streams, by the kind of protocol.
func said(ctx context.Context, net *dev.Network) (map[string]float64, error) {
	sum := map[string]float64{}
	for _, node := range net.Nodes() {
		all, err := net.Telemetry(ctx, node)
		if err != nil {
			return nil, fmt.Errorf("telemetry of %s: %w", node, err)
		}
		for _, p := range all {
			for line := range bytes.Lines(p.GetText()) {
				labels, ok := bytes.CutPrefix(line, []byte("shallot_broker_stream_bytes_total{"))
				if !ok {
					continue
				}
				what, value, _ := bytes.Cut(labels, []byte("} "))
				v, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
				if err != nil {
					return nil, err
				}
				sum[string(bytes.ReplaceAll(what, []byte{'"'}, nil))] += v
			}
		}
	}
	if len(sum) == 0 {
		return nil, errors.New("no broker says how many bytes it has moved")
	}
	return sum, nil
}
