package main

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/broker"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor"
	"github.com/shallot-net/shallot/services/task/internal/adapter/external"
	"github.com/shallot-net/shallot/services/task/internal/adapter/puzzle"
	"github.com/shallot-net/shallot/services/task/internal/adapter/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// settings are what can be configured; newSettings has the defaults.
type settings struct {
	config.Common
	pgstore.Settings
	Role     string           `koanf:"role" help:"provider or consumer"`
	Mode     string           `koanf:"mode" help:"open, or anonymous: sizes and figures that leave this node are rounded, and each task's content is its persona's own and given to its provider alone"`
	Broker   string           `koanf:"broker" help:"endpoint of the broker; empty: its socket in the home"`
	Provider providerSettings `koanf:"provider"`
	Consumer consumerSettings `koanf:"consumer"`
	Wasm     wasmSettings     `koanf:"wasm"`
}

// codec is how this node says what others may know.
func (s *settings) codec() app.Codec {
	if s.anonymous() {
		return wire.Coarse{}
	}
	return wire.Codec{}
}

type providerSettings struct {
	Evaluator     string             `koanf:"evaluator" help:"who runs a task that is offered here: two-choices, best-metric or local"`
	Types         []string           `koanf:"types" help:"task types that are offered; empty: all that there are executors for"`
	Executors     []external.Address `koanf:"executors" help:"executors of your own, TYPE=unix:/path or TYPE=127.0.0.1:port: gRPC servers of shallot.executor.v1"`
	Allow         []string           `koanf:"allow" help:"peers that may submit; empty: all"`
	Deny          []string           `koanf:"deny" help:"peers that may not submit"`
	Slots         int                `koanf:"slots" help:"tasks that run side by side; 0: the number of CPUs"`
	Queue         int                `koanf:"queue" help:"tasks that wait at most"`
	PerPeer       int                `koanf:"per_peer" help:"unfinished tasks of one peer at most; 0: three quarters of the queue"`
	PerSecond     int                `koanf:"per_second" help:"submissions of one peer in a second; twice as many may come at once, and what is more is refused"`
	MaxPayload    config.Size        `koanf:"max_payload" help:"size of one payload at most"`
	Parts         config.Size        `koanf:"parts" help:"programs and input files that are kept for the next task that refers to them, at most"`
	MaxTime       time.Duration      `koanf:"max_time" help:"time limit that is granted at most"`
	MaxMemory     config.Size        `koanf:"max_memory" help:"memory limit that is granted at most"`
	MaxOutput     config.Size        `koanf:"max_output" help:"output limit that is granted at most"`
	DefaultTime   time.Duration      `koanf:"default_time" help:"time limit of a task that asks for none"`
	DefaultMemory config.Size        `koanf:"default_memory" help:"memory limit of a task that asks for none"`
	DefaultOutput config.Size        `koanf:"default_output" help:"output limit of a task that asks for none"`
	Keep          time.Duration      `koanf:"keep" help:"how long a result waits for its consumer at most"`
	Replicas      config.Size        `koanf:"replicas" help:"size of all results of other providers that are kept here for their consumers at most; 0: none"`
	ReplicasPeer  config.Size        `koanf:"replicas_per_peer" help:"of these, those that one peer made or ordered at most"`
	Puzzle        puzzleSettings     `koanf:"puzzle"`
}

// puzzleSettings are the price that strangers pay for a submission.
type puzzleSettings struct {
	Mode string   `koanf:"mode" help:"whether strangers pay for a submission by solving a puzzle: on, off, or auto, which is on in anonymous mode; in a private network, whose members are no strangers, say off"`
	Min  uint32   `koanf:"min" help:"effort that is always asked for, in evaluations of less than a millisecond that it takes in the mean; 0 (nothing while there is little to do) or a power of two"`
	Max  uint32   `koanf:"max" help:"effort that is asked for at most; a power of two"`
	Rate float64  `koanf:"rate" help:"submissions of strangers in a second above which the effort is doubled each second; so it is while the queue is a quarter full"`
	Free []string `koanf:"free" help:"peers that pay nothing; the word allowed stands for those of provider.allow"`
}

// Words of provider.puzzle.
const (
	puzzleAuto  = "auto"
	puzzleOn    = "on"
	puzzleOff   = "off"
	freeAllowed = "allowed"
)

func (p *puzzleSettings) check() error {
	known := []string{puzzleAuto, puzzleOn, puzzleOff}
	if !slices.Contains(known, p.Mode) {
		return invalid("provider.puzzle.mode", p.Mode, strings.Join(known, ", "), known)
	}
	for key, effort := range map[string]uint32{"provider.puzzle.min": p.Min, "provider.puzzle.max": p.Max} {
		if err := checkEffort(key, effort); err != nil {
			return err
		}
	}
	if p.Max == 0 || p.Min > p.Max || !(p.Rate > 0) {
		return fault.InvalidArgument("CONFIG_INVALID", "provider.puzzle.max is 0 or less than provider.puzzle.min, or provider.puzzle.rate is not above 0: to ask for nothing say --provider.puzzle.mode off")
	}
	for _, peer := range p.Free {
		if peer != freeAllowed && !domain.ValidPeer(peer) {
			return fault.InvalidArgument("CONFIG_INVALID", "provider.puzzle.free has %q, which is neither a peer id nor the word %s", peer, freeAllowed)
		}
	}
	return nil
}

func checkEffort(key string, effort uint32) error {
	if !domain.ValidEffort(effort) {
		return fault.InvalidArgument("CONFIG_INVALID", "%s is %d: it must be 0 or a power of two of at most %d", key, effort, domain.MaxEffort)
	}
	return nil
}

// price is what strangers pay.
func (s *settings) price() provider.Price {
	p := &s.Provider.Puzzle
	if p.Mode == puzzleOff || p.Mode == puzzleAuto && !s.anonymous() {
		return provider.Price{}
	}
	return provider.Price{Work: puzzle.Work, Rules: domain.TollRules{Min: p.Min, Max: p.Max, Rate: p.Rate}, Free: p.Free, FreeAllowed: slices.Contains(p.Free, freeAllowed)}
}

type consumerSettings struct {
	Lease      time.Duration `koanf:"lease" help:"how long a provider may be silent before its task is given to another; 8s at least; 0: 15s, in anonymous mode 90s"`
	Redirect   bool          `koanf:"redirect" help:"open mode: whether a provider may hand a task on to a better one when its user did not say; in anonymous mode it may not"`
	Keep       time.Duration `koanf:"keep" help:"how long a provider is asked to keep a result"`
	Retention  time.Duration `koanf:"retention" help:"how long tasks are kept after their end; 0: for ever"`
	MaxResult  config.Size   `koanf:"max_result" help:"size of one result at most"`
	MaxPayload config.Size   `koanf:"max_payload" help:"size of one payload at most"`
	Uploads    config.Size   `koanf:"uploads" help:"size of all uploads that wait for their tasks at most"`
	KeyPool    int           `koanf:"key_pool" help:"task keys that are made ahead"`
	MaxEffort  uint32        `koanf:"max_effort" help:"the largest effort that is paid where a provider asks strangers for a puzzle, in evaluations that it takes in the mean, half a millisecond each; a power of two; dearer providers get no task"`
}

type wasmSettings struct {
	Binary string      `koanf:"binary" help:"the shallot-executor-wasm to start; empty: the one beside this program"`
	Warm   int         `koanf:"warm" help:"child processes that are kept ready"`
	Cache  config.Size `koanf:"cache" help:"compiled modules on disk at most"`
}

// Modes.
const (
	modeOpen      = "open"
	modeAnonymous = "anonymous"
)

func (s *settings) anonymous() bool { return s.Mode == modeAnonymous }

// stall is how long a fetch of content may give nothing.
func (s *settings) stall() time.Duration {
	if s.anonymous() {
		return broker.StallAnonymous
	}
	return broker.Stall
}

func newSettings() *settings {
	p := provider.DefaultLimits
	return &settings{
		Role: "consumer", Mode: modeOpen,
		Provider: providerSettings{Evaluator: domain.TwoChoices{}.Name(), Queue: 1024, PerSecond: 1000, MaxPayload: 1 << 30, Parts: 2 << 30,
			MaxTime: p.Max.Time, MaxMemory: config.Size(p.Max.Memory), MaxOutput: config.Size(p.Max.Output),
			DefaultTime: p.Default.Time, DefaultMemory: config.Size(p.Default.Memory), DefaultOutput: config.Size(p.Default.Output), Keep: 48 * time.Hour,
			Replicas: 4 << 30, ReplicasPeer: 1 << 30,
			Puzzle: puzzleSettings{Mode: puzzleAuto, Max: domain.DefaultMaxEffort, Rate: domain.DefaultTollRate}},
		Consumer: consumerSettings{Redirect: true, Keep: 24 * time.Hour, MaxResult: 4 << 30, MaxPayload: 4 << 30, Uploads: 16 << 30, KeyPool: 16, MaxEffort: domain.DefaultMaxEffort},
		Wasm:     wasmSettings{Warm: 1, Cache: 1 << 30},
	}
}

var evaluators = map[string]provider.Evaluator{
	domain.TwoChoices{}.Name(): domain.TwoChoices{Margin: domain.DefaultRounds},
	domain.BestMetric{}.Name(): domain.BestMetric{Margin: domain.DefaultMargin},
	domain.Local{}.Name():      domain.Local{},
}

// What a consumer waits for, by mode: over Tor a dial is several round trips of up to 3 s, and a circuit that dies is noticed after some ten seconds.
const (
	openLease       = 15 * time.Second
	anonymousLease  = 90 * time.Second
	anonymousSubmit = time.Minute
)

// Validate checks what the types cannot say.
func (s *settings) Validate() error {
	if s.Role != "provider" && s.Role != "consumer" {
		return invalid("role", s.Role, "provider, consumer", []string{"provider", "consumer"})
	}
	if s.Mode != modeOpen && s.Mode != modeAnonymous {
		return invalid("mode", s.Mode, "open, anonymous", []string{modeOpen, modeAnonymous})
	}
	if err := s.Settings.Check(); err != nil {
		return err
	}
	if evaluators[s.Provider.Evaluator] == nil {
		known := []string{"two-choices", "best-metric", "local"}
		return invalid("provider.evaluator", s.Provider.Evaluator, strings.Join(known, ", "), known)
	}
	for _, peers := range [][]string{s.Provider.Allow, s.Provider.Deny} {
		for _, p := range peers {
			if !domain.ValidPeer(p) {
				return fault.InvalidArgument("CONFIG_INVALID", "provider.allow or provider.deny has %q, which is not a peer id", p)
			}
		}
	}
	p, c := &s.Provider, &s.Consumer
	if c.Lease == 0 {
		c.Lease = openLease
		if s.anonymous() {
			c.Lease = anonymousLease
		}
	}
	if min(p.MaxTime, p.DefaultTime, p.Keep, c.Lease, c.Keep) <= 0 || min(p.MaxMemory, p.MaxOutput, p.MaxPayload, p.DefaultMemory, p.DefaultOutput, c.MaxResult, c.MaxPayload, c.Uploads, p.ReplicasPeer) <= 0 {
		return fault.InvalidArgument("CONFIG_INVALID", "a limit, a size or a time of provider or consumer is not above 0")
	}
	if c.Lease < domain.ShortestLease {
		return fault.InvalidArgument("CONFIG_INVALID", "consumer.lease is %v, and providers say every %v that they are at work: make it %v at least, or tasks are taken from providers that are well",
			c.Lease, domain.ReportEvery, domain.ShortestLease)
	}
	if err := checkExecutors(p.Executors); err != nil {
		return err
	}
	if err := p.Puzzle.check(); err != nil {
		return err
	}
	if err := checkEffort("consumer.max_effort", c.MaxEffort); err != nil || c.MaxEffort == 0 {
		return cmp.Or(err, error(fault.InvalidArgument("CONFIG_INVALID", "consumer.max_effort is 0: make it 1 to pay next to nothing")))
	}
	if p.Slots < 0 || p.Queue <= 0 || p.PerPeer < 0 || p.PerSecond <= 0 || c.KeyPool < 0 || c.Retention < 0 {
		return fault.InvalidArgument("CONFIG_INVALID", "provider.slots, provider.queue, provider.per_peer, provider.per_second, consumer.key_pool or consumer.retention is too small")
	}
	return nil
}

// maxExecutors is what an announcement has room for, beside the types that are built in.
const maxExecutors = 12

// checkExecutors finds executors that cannot be told from others. Whoever names one allows it. For an anonymous node
// the supervisor names those that were given at its start, on Unix sockets only, and with them none of the configuration's.
func checkExecutors(list []external.Address) error {
	if len(list) > maxExecutors {
		return fault.InvalidArgument("CONFIG_INVALID", "provider.executors has %d entries, and may have %d", len(list), maxExecutors)
	}
	seen := map[string]bool{executor.TypeSum: true, executor.TypeWasm: true}
	for _, a := range list {
		if seen[a.Type] {
			return fault.InvalidArgument("CONFIG_INVALID", "provider.executors has %s, and there is an executor for %q already: give it another name", a.Endpoint, a.Type)
		}
		seen[a.Type] = true
	}
	return nil
}

func invalid(key, value, known string, words []string) error {
	msg := "%s is %q: it must be one of %s"
	if hint := fault.Suggest(value, words); hint != "" {
		msg += "; " + hint
	}
	return fault.InvalidArgument("CONFIG_INVALID", msg, key, value, known)
}

func (s *settings) policy() provider.Policy {
	p := &s.Provider
	replicas := int64(p.Replicas)
	if replicas == 0 {
		replicas = -1 // the policy's 0 is its default
	}
	return provider.Policy{Replicas: replicas, ReplicasPerPeer: int64(p.ReplicasPeer),
		Types: p.Types, Allow: p.Allow, Deny: p.Deny, Slots: p.Slots, Capacity: p.Queue, PerPeer: p.PerPeer, PerSecond: p.PerSecond, MaxPayload: int64(p.MaxPayload),
		Limits: domain.LimitsPolicy{
			Default: domain.Limits{Time: p.DefaultTime, Memory: int64(p.DefaultMemory), Output: int64(p.DefaultOutput)},
			Max:     domain.Limits{Time: p.MaxTime, Memory: int64(p.MaxMemory), Output: int64(p.MaxOutput)}}}
}

func (s *settings) consumer() consumer.Config {
	c := &s.Consumer
	redirect := c.Redirect && !s.anonymous() // there a task goes to nobody whom its user's node has not chosen, unless the user says so
	var submit time.Duration                 // as it is in open mode
	if s.anonymous() {
		submit = anonymousSubmit
	}
	return consumer.Config{Anonymous: s.anonymous(), Lease: c.Lease, SubmitTimeout: submit, Redirect: redirect, Keep: c.Keep, Retention: c.Retention, MaxResult: int64(c.MaxResult), MaxPayload: int64(c.MaxPayload),
		Puzzle: puzzle.Work, MaxEffort: c.MaxEffort}
}

// wasmBinary is the executor to start.
func (s *settings) wasmBinary() (string, error) {
	if s.Wasm.Binary != "" {
		return s.Wasm.Binary, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fault.FailedPrecondition("EXECUTOR_MISSING", "cannot find this program's directory: say where shallot-executor-wasm is with --wasm.binary").Because(err)
	}
	return filepath.Join(filepath.Dir(self), "shallot-executor-wasm"), nil
}
