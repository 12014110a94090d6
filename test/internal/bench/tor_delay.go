package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/measure"
	"github.com/shallot-net/shallot/test/internal/slow"
)

// Of the row tor-delay.
const (
	delayRounds = 2 // of all pairs: each takes some minutes
	delayTrips  = 9 // of the floor, a pair and round
	delayShards = 7 // of a job, a pair and round
)

// torDelay measures tasks where round trips take as long as between the pairs of a study of the public Tor network. The delays are in a line between the consumer's broker and its tor, so each
// connection has those of one pair; the floor is round trips of raw connections through the same line, in turns with the tasks.
func (s *session) torDelay(ctx context.Context) (figures []Figure, err error) {
	dir := filepath.Join(s.dir, "delay")
	if err := os.MkdirAll(filepath.Join(dir, torConsumer), 0o700); err != nil {
		return nil, err
	}
	// All shards of a job leave from one persona: the first connects it, the others are measured.
	if err := os.WriteFile(filepath.Join(dir, torConsumer, "config.yaml"), []byte("node:\n  personas:\n    per_job: 1\n"), 0o600); err != nil {
		return nil, err
	}
	n, err := dev.Start(ctx, dev.Config{Bin: s.Bin, Dir: dir, Providers: 1, Consumers: 1, Args: []string{"--anonymous", "--tor-relays", torRelays}, Timeout: torStart})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Stop()) }()
	echo, err := s.reachedEcho(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer echo.close()
	var own []time.Duration // of this machine's Tor, which is part of what is to come to the mean
	for range s.or(10, 2) {
		_, trips, err := echo.connect(ctx, torConsumer, 4)
		if err != nil {
			return nil, err
		}
		own = append(own, trips[1:]...)
	}
	consumer, err := home.Find(n.Home(torConsumer))
	if err != nil {
		return nil, err
	}
	line, err := slow.StandIn(consumer.Socket("tor-socks"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, line.Close()) }()
	return s.delayed(ctx, n, echo, line, measure.Quantile(own, 0.5))
}

func (s *session) delayed(ctx context.Context, n *dev.Network, echo *onionEcho, line *slow.Line, own time.Duration) ([]Figure, error) {
	raw, warm := make([][]time.Duration, len(slow.Studied)), make([][]time.Duration, len(slow.Studied))
	for round := range s.or(delayRounds, 1) {
		for pair, mean := range slow.Studied[:s.or(len(slow.Studied), 1)] {
			line.Use(max(0, mean-own), uint64(1+round*len(slow.Studied)+pair))
			_, trips, err := echo.connect(ctx, torConsumer, s.or(delayTrips, 3))
			if err != nil {
				return nil, err
			}
			took, err := shardTimes(ctx, n, torConsumer, s.or(delayShards, 3))
			if err != nil {
				return nil, fmt.Errorf("round %d, round trips of %v: %w", round+1, mean, err)
			}
			raw[pair], warm[pair] = append(raw[pair], trips[1:]...), append(warm[pair], took...)
		}
	}
	detail := map[string]float64{"tor's own round trip on this machine, ms": milliseconds(own)}
	var trips, tasks []time.Duration
	for pair, mean := range slow.Studied {
		if len(raw[pair]) == 0 {
			continue
		}
		detail[fmt.Sprintf("pair of %d ms: round trip p50, ms", mean.Milliseconds())] = milliseconds(measure.Quantile(raw[pair], 0.5))
		detail[fmt.Sprintf("pair of %d ms: task p50, ms", mean.Milliseconds())] = milliseconds(measure.Quantile(warm[pair], 0.5))
		trips, tasks = append(trips, raw[pair]...), append(tasks, warm[pair]...)
	}
	detail["round trip p99, ms"], detail["task p99, ms"] = milliseconds(measure.Quantile(trips, 0.99)), milliseconds(measure.Quantile(tasks, 0.99))
	floor := milliseconds(measure.Quantile(trips, 0.5))
	f := Figure{Name: "small wasm over Tor, round trips as measured in the world, its persona connected, p50", Unit: "ms", Ours: milliseconds(measure.Quantile(tasks, 0.5)), Detail: detail}
	return []Figure{f.beside(floor, "1 round trip by the same line").atMost(1.25*floor, "≤ 1.25 × round trip")}, nil
}

// reachedEcho tries for some time: one directory has taken the echo's descriptor when it is made, and a busy machine may ask another one first.
func (s *session) reachedEcho(ctx context.Context, dir string) (echo *onionEcho, err error) {
	for range 5 {
		if echo, err = newOnionEcho(ctx, dir); err == nil {
			return echo, nil
		}
		if perr := pause(ctx, torRefill); perr != nil {
			return nil, errors.Join(perr, err)
		}
	}
	return nil, err
}
