package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/proxy"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/padding"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/measure"
	"github.com/shallot-net/shallot/test/internal/module"
)

// The consumers of the row tor: as they are, with one persona for all shards of a job, and with no persona ready for the next task.
const (
	torConsumer = "consumer-1"
	torShared   = "consumer-2"
	torUnready  = "consumer-3"
	torCircuits = 20 // each sample has circuits of its own
	torShards   = 5  // timed of each job, by one circuit
	torStart    = 10 * time.Minute
	// torRelays is how many relays the private network has beside its authorities. Where both halves of a circuit go from one relay to the same next one, what is said waits 40 ms at it
	// in each direction, because the second write waits for the first one's delayed acknowledgement. With 6 relays that seemed so for a quarter of all circuits and more, with some thousands it must be rare.
	torRelays = "18"
	torRefill = 3 * time.Second // for the pool of personas to be full again
)

// tor measures tasks over a private Tor network, beside what tor alone takes on as many circuits between the same two tors in the same minutes. Which circuit one gets decides
// much, and so does which relays the two enter by, which is for as long as they live: the figures are medians over circuits, and there is one provider.
func (s *session) tor(ctx context.Context) (figures []Figure, err error) {
	dir := filepath.Join(s.dir, "tor")
	for name, cfg := range map[string]string{torShared: "per_job: 1", torUnready: "warm: 0"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, name, "config.yaml"), []byte("node:\n  personas:\n    "+cfg+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	n, err := dev.Start(ctx, dev.Config{Bin: s.Bin, Dir: dir, Providers: 1, Consumers: 3, Args: []string{"--anonymous", "--tor-relays", torRelays}, Timeout: torStart})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Stop()) }()
	echo, err := s.reachedEcho(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer echo.close()
	for _, consumer := range []string{torShared, torUnready} {
		if _, _, err := echo.connect(ctx, consumer, 1); err != nil { // fetches the descriptor
			return nil, err
		}
	}
	memory, err := torMemory(n)
	if err != nil {
		return nil, err
	}
	cold, err := s.torCold(ctx, n, echo)
	if err != nil {
		return nil, err
	}
	warm, err := s.torWarm(ctx, n, echo)
	if err != nil {
		return append(cold, memory...), err
	}
	return append(append(cold, warm), memory...), nil
}

// torCold times first tasks of personas, in turns with raw connections by the same tors.
func (s *session) torCold(ctx context.Context, n *dev.Network, echo *onionEcho) ([]Figure, error) {
	type kind struct {
		consumer, figure string
		times            float64 // of the raw connection that it may take
		raw, took        []time.Duration
	}
	kinds := []*kind{{consumer: torConsumer, figure: "sum over Tor, a persona from the pool, p50", times: 2}, {consumer: torUnready, figure: "the same without a pool, p50", times: 4}}
	for range s.or(torCircuits, 2) {
		for i, k := range kinds {
			steps := []func() error{
				func() error {
					d, _, err := echo.connect(ctx, k.consumer, 1)
					k.raw = append(k.raw, d)
					return err
				},
				func() error {
					d, err := timedSum(ctx, n, k.consumer)
					k.took = append(k.took, d)
					return err
				},
			}
			if (len(k.took)+i)%2 == 1 { // the first after the pause finds nothing of it going on
				slices.Reverse(steps)
			}
			for _, step := range steps {
				if err := step(); err != nil {
					return nil, fmt.Errorf("%s: %w", k.consumer, err)
				}
			}
			if err := pause(ctx, torRefill); err != nil {
				return nil, err
			}
		}
	}
	var out []Figure
	for _, k := range kinds {
		bare := milliseconds(measure.Quantile(k.raw, 0.5))
		f := Figure{Name: k.figure, Unit: "ms", Ours: milliseconds(measure.Quantile(k.took, 0.5)), Detail: map[string]float64{"p90, ms": milliseconds(measure.Quantile(k.took, 0.9)),
			"floor p90, ms": milliseconds(measure.Quantile(k.raw, 0.9))}}.beside(bare, "raw onion connect + 1 round trip")
		out = append(out, f.atMost(k.times*bare, fmt.Sprintf("≤ %g × raw connect", k.times)))
	}
	return out, nil
}

// torWarm times the shards of jobs that run one after the other, all from one persona each, but the first of each job.
func (s *session) torWarm(ctx context.Context, n *dev.Network, echo *onionEcho) (Figure, error) {
	var raw, warm []time.Duration
	for range s.or(torCircuits, 2) {
		_, trips, err := echo.connect(ctx, torShared, 1+torShards)
		if err != nil {
			return Figure{}, err
		}
		raw = append(raw, trips[1:]...)
		took, err := shardTimes(ctx, n, torShared, 1+torShards)
		if err != nil {
			return Figure{}, err
		}
		warm = append(warm, took...)
	}
	const execution = 8 // ms: what a small task takes without Tor, see the row latency
	bare := milliseconds(measure.Quantile(raw, 0.5)) + execution
	f := Figure{Name: "small wasm over Tor, its persona connected, p50", Unit: "ms", Ours: milliseconds(measure.Quantile(warm, 0.5)),
		Detail: map[string]float64{"p90, ms": milliseconds(measure.Quantile(warm, 0.9)), "floor p90, ms": milliseconds(measure.Quantile(raw, 0.9)) + execution}}.beside(bare, "1 round trip + 8 ms")
	return f.atMost(max(1.25*bare, bare+8), "≤ 1.25 × round trip, or 8 ms more"), nil
}

// shardTimes are how long the shards of a job took that run one at a time, each from when its task was made, which is when the one before it had ended, to its decrypted result. The
// first one's, which is the one that connects, is left out.
func shardTimes(ctx context.Context, n *dev.Network, consumer string, count int) (took []time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	jobs, err := n.Jobs(consumer)
	if err != nil {
		return nil, err
	}
	node, err := n.Node(consumer)
	if err != nil {
		return nil, err
	}
	made, err := jobs.CreateJob(ctx, &nodev1.CreateJobRequest{RequestId: rand.Text(), Spec: &taskv1.JobSpec{Total: uint32(count), Parallel: 1, Task: wasmSpec(inline(module.Small()), nil)}})
	if err != nil {
		return nil, err
	}
	add := &nodev1.AddShardsRequest{JobId: made.GetJob().GetId()}
	for i := range count {
		add.Shards = append(add.Shards, &taskv1.NewShard{Index: uint32(i), Name: fmt.Sprintf("input-%d", i), Content: inline(fmt.Appendf(nil, "input %d", i))})
	}
	if _, err := jobs.AddShards(ctx, add); err != nil {
		return nil, err
	}
	stream, err := jobs.WatchJob(ctx, &nodev1.WatchJobRequest{JobId: add.GetJobId(), Stdout: true})
	if err != nil {
		return nil, err
	}
	var tasks []string
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		sh := m.GetShard()
		if sh == nil {
			continue
		}
		if string(sh.GetStdout()) != "done\n" {
			return nil, fmt.Errorf("a shard printed %.100q and is %s: %v", sh.GetStdout(), sh.GetShard().GetState(), sh.GetShard().GetError())
		}
		tasks = append(tasks, sh.GetShard().GetTaskId())
	}
	if len(tasks) != count {
		return nil, fmt.Errorf("%d shards have ended, of %d", len(tasks), count)
	}
	for _, id := range tasks[1:] {
		got, err := node.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: id})
		if err != nil {
			return nil, err
		}
		took = append(took, got.GetTask().GetFinishedAt().AsTime().Sub(got.GetTask().GetCreatedAt().AsTime()))
	}
	return took, nil
}

func timedSum(ctx context.Context, n *dev.Network, consumer string) (time.Duration, error) {
	node, err := n.Node(consumer)
	if err != nil {
		return 0, err
	}
	one := &session{node: node}
	begin := time.Now()
	err = one.sum(ctx)
	return time.Since(begin), err
}

// torPid is the node's own tor, by what its supervisor says.
func torPid(dir string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "run", "node.json"))
	if err != nil {
		return 0, err
	}
	var state struct {
		Processes []struct {
			Name string
			PID  int
		}
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return 0, err
	}
	for _, p := range state.Processes {
		if p.Name == "tor" && p.PID > 0 {
			return p.PID, nil
		}
	}
	return 0, errors.New("the node's tor does not run")
}

func torMemory(n *dev.Network) ([]Figure, error) {
	processes, err := n.Processes("provider-1")
	if err != nil {
		return nil, err
	}
	const mib = 1 << 20
	detail, without := map[string]float64{}, 0.0
	for _, p := range processes {
		pss := float64(measure.PSS(p.Pid)) / mib
		detail[p.Name+", MiB"] += pss
		without += pss
	}
	pid, err := torPid(n.Home("provider-1"))
	if err != nil {
		return nil, err
	}
	tor := float64(measure.PSS(pid)) / mib
	detail["tor, MiB"] = tor
	return []Figure{
		Figure{Name: "idle anonymous provider, memory (PSS), without its tor", Unit: "MiB", Ours: without, Detail: detail}.atMost(150, "≤ 150 MiB"),
		Figure{Name: "the same with its tor", Unit: "MiB", Ours: without + tor}.atMost(220, "≤ 220 MiB"),
	}, nil
}

// onionEcho is an onion service of the first provider's tor, as it is reached through the first consumer's.
type onionEcho struct {
	control  net.Conn
	listener net.Listener
	address  string
	homes    string // of the nodes
	dir      string
}

const (
	echoPort = 7
	// echoSize is that of the least event over Tor.
	echoSize = padding.Floor
)

// newOnionEcho gives back what it gets.
func newOnionEcho(ctx context.Context, dir string) (*onionEcho, error) {
	return newOnionService(ctx, dir, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

func newOnionService(ctx context.Context, dir string, serve func(net.Conn)) (e *onionEcho, err error) {
	provider, err := home.Find(filepath.Join(dir, "provider-1"))
	if err != nil {
		return nil, err
	}
	begun := &onionEcho{homes: dir}
	e = begun
	if e.dir, err = os.MkdirTemp("", "echo"); err != nil { // a short path
		return nil, err
	}
	defer func() {
		if err != nil {
			begun.close()
		}
	}()
	socket := filepath.Join(e.dir, "s")
	if e.listener, err = net.Listen("unix", socket); err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := e.listener.Accept()
			if err != nil {
				return
			}
			go func() { serve(c); c.Close() }()
		}
	}()
	cookie, err := os.ReadFile(filepath.Join(provider.Dir, "tor", "data", "control_auth_cookie"))
	if err != nil {
		return nil, err
	}
	if e.control, err = net.Dial("unix", provider.Socket("tor-control")); err != nil {
		return nil, err
	}
	_ = e.control.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := fmt.Fprintf(e.control, "AUTHENTICATE %s\r\nSETEVENTS HS_DESC\r\nADD_ONION NEW:ED25519-V3 Flags=DiscardPK Port=%d,unix:%s\r\n", hex.EncodeToString(cookie), echoPort, socket); err != nil {
		return nil, err
	}
	for r := bufio.NewReader(e.control); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("no onion service for the floor: %w", err)
		}
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "250-ServiceID="); ok {
			e.address = id + ".onion"
		}
		if e.address != "" && strings.Contains(line, "HS_DESC UPLOADED "+strings.TrimSuffix(e.address, ".onion")) {
			_ = e.control.SetDeadline(time.Time{})
			go func() { _, _ = io.Copy(io.Discard, r) }()
			break
		}
	}
	// The first dial fetches the descriptor, which later ones have.
	c, err := e.dial(ctx, torConsumer)
	if err != nil {
		return nil, err
	}
	return e, c.Close()
}

func (e *onionEcho) close() {
	if e.listener != nil {
		e.listener.Close()
	}
	if e.control != nil {
		e.control.Close()
	}
	os.RemoveAll(e.dir)
}

// dial goes through a consumer's tor, by circuits of its own.
func (e *onionEcho) dial(ctx context.Context, consumer string) (net.Conn, error) {
	from, err := home.Find(filepath.Join(e.homes, consumer))
	if err != nil {
		return nil, err
	}
	d, err := proxy.SOCKS5("unix", from.Socket("tor-socks"), &proxy.Auth{User: rand.Text(), Password: "-"}, nil)
	if err != nil {
		return nil, err
	}
	c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", e.address, echoPort))
	if err != nil {
		return nil, fmt.Errorf("the floor's onion service: %w", err)
	}
	return c, nil
}

// connect dials by circuits of its own and makes round trips. took is from the dial to the end of the first.
func (e *onionEcho) connect(ctx context.Context, consumer string, trips int) (took time.Duration, each []time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	begin := time.Now()
	c, err := e.dial(ctx, consumer)
	if err != nil {
		return 0, nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	said, heard := bytes.Repeat([]byte{'x'}, echoSize), make([]byte, echoSize)
	for i := range trips {
		one := time.Now()
		if _, err := c.Write(said); err != nil {
			return 0, nil, err
		}
		if _, err := io.ReadFull(c, heard); err != nil {
			return 0, nil, err
		}
		each = append(each, time.Since(one))
		if i == 0 {
			took = time.Since(begin)
		}
	}
	return took, each, nil
}
