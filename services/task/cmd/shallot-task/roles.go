package main

import (
	"context"
	"path/filepath"
	"runtime"
	"time"

	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/services/task/internal/adapter/crypt"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor"
	"github.com/shallot-net/shallot/services/task/internal/adapter/external"
	"github.com/shallot-net/shallot/services/task/internal/adapter/files"
	"github.com/shallot-net/shallot/services/task/internal/adapter/grpcserver"
	"github.com/shallot-net/shallot/services/task/internal/adapter/identity"
	"github.com/shallot-net/shallot/services/task/internal/adapter/metrics"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/app/consumer"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
)

type background = []func(ctx context.Context) error

// uploadKeep is how long an upload that nobody uses is kept.
const uploadKeep = time.Hour

// consumer wires a consumer's task service.
func (p *parts) consumer(ctx context.Context) (grpcserver.Config, background, error) {
	var none grpcserver.Config
	results, err := files.NewResults(filepath.Join(p.dir, "results"))
	if err != nil {
		return none, nil, err
	}
	uploads, err := files.NewUploads(filepath.Join(p.dir, "uploads"), uploadKeep, int64(p.cfg.Consumer.Uploads))
	if err != nil {
		return none, nil, err
	}
	inputs, err := files.NewInputs(filepath.Join(p.dir, "jobs"), uploads)
	if err != nil {
		return none, nil, err
	}
	logs, err := files.NewLogs(filepath.Join(p.dir, "logs"))
	if err != nil {
		return none, nil, err
	}
	keys := crypt.NewKeys(p.cfg.Consumer.KeyPool)
	cfg := p.cfg.consumer()
	cfg.Store, cfg.Codec, cfg.Cipher, cfg.Keys = p.store, p.cfg.codec(), crypt.NewCipher(), keys
	cfg.Repository, cfg.Verifier, cfg.Pusher = p.repository, identity.Verifier{}, p.sessions
	cfg.Results, cfg.Uploads, cfg.Logs, cfg.Inputs = results, uploads, logs, inputs
	cfg.Metrics, cfg.Log = metrics.New(p.registry, "sum", "wasm"), p.log
	cfg.Validators = map[string]consumer.Validator{
		"sum": func(_ context.Context, options []byte, parts []app.Part) error {
			return executor.ValidateSum(options, parts)
		},
		"wasm": (&executor.Validator{}).Validate,
	}
	alone, err := p.alone(ctx)
	if err != nil {
		return none, nil, err
	}
	s := consumer.New(cfg)
	if err := s.Load(ctx); err != nil {
		return none, nil, err
	}
	return grpcserver.Config{Role: s, Reader: s, Consumer: s, Uploads: uploads, Jobs: s, Log: p.log}, background{
		s.Run, keys.Run, alone,
		func(ctx context.Context) error {
			return every(ctx, 10*time.Minute, func() {
				uploads.Expire(time.Now())
				if err := s.Prune(ctx); err != nil && ctx.Err() == nil {
					p.log.Warn("old tasks could not be deleted", logging.Err(err))
				}
			})
		},
	}, nil
}

// provider wires a provider's task service.
func (p *parts) provider(ctx context.Context) (grpcserver.Config, background, error) {
	var none grpcserver.Config
	secret, err := p.store.Setting(ctx, "sealing_key", func() ([]byte, error) {
		k, err := crypt.NewSecret()
		return []byte(k), err
	})
	if err != nil {
		return none, nil, err
	}
	key, err := crypt.ParseSealingKey(string(secret))
	if err != nil {
		return none, nil, err
	}
	work, err := files.NewWorkspace(filepath.Join(p.dir, "work"))
	if err != nil {
		return none, nil, err
	}
	kept, err := files.NewParts(filepath.Join(p.dir, "parts"), int64(p.cfg.Provider.Parts))
	if err != nil {
		return none, nil, err
	}
	executors, err := p.executors(ctx)
	if err != nil {
		return none, nil, err
	}
	var guests background
	for _, a := range p.cfg.Provider.Executors {
		e, err := external.New(external.Config{Address: a, Log: p.log, Registry: p.registry})
		if err != nil {
			return none, nil, err
		}
		p.closers = append(p.closers, e.Close)
		executors, guests = append(executors, e), append(guests, e.Run)
	}
	types := make([]string, len(executors))
	for i, e := range executors {
		types[i] = e.Describe().Type
	}
	fleet, err := p.fleet()
	if err != nil {
		return none, nil, err
	}
	s, err := provider.New(provider.Config{Store: p.store, Fleet: fleet, Codec: p.cfg.codec(), Cipher: crypt.NewCipher(), Key: key, Repository: p.repository, Verifier: identity.Verifier{},
		Executors: executors, Evaluator: evaluators[p.cfg.Provider.Evaluator], Workspace: work, Parts: kept, Pusher: p.sessions,
		Metrics: metrics.New(p.registry, types...), Log: p.log, Policy: p.cfg.policy(), Price: p.cfg.price(), Trace: p.trace, Anonymous: p.cfg.anonymous(), Keep: p.cfg.Provider.Keep})
	if err != nil {
		return none, nil, err
	}
	metrics.Queue(p.registry, s.Queue)
	metrics.Price(p.registry, s.Effort)
	if err := s.Load(ctx); err != nil {
		return none, nil, err
	}
	return grpcserver.Config{Role: s, Reader: s, Provider: s, Log: p.log}, append(background{s.Run}, guests...), nil
}

// executors starts what runs tasks.
func (p *parts) executors(ctx context.Context) ([]app.Executor, error) {
	binary, err := p.cfg.wasmBinary()
	if err != nil {
		return nil, err
	}
	slots := p.cfg.Provider.Slots
	if slots == 0 {
		slots = runtime.NumCPU()
	}
	wasm, err := executor.NewWasm(ctx, executor.Config{Binary: binary, Dir: filepath.Join(p.dir, "wasm"), Warm: p.cfg.Wasm.Warm, Max: max(slots, 4),
		CacheBytes: int64(p.cfg.Wasm.Cache), Log: p.log})
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, wasm.Close)
	return []app.Executor{executor.Sum{}, wasm}, nil
}
