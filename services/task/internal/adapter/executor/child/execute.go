package child

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/engine"
)

// overhead is what the process itself may take for a run beyond the program's memory, in bytes: buffers, tables,
// stacks of threads.
const overhead = 256 << 20

// holdFrom is the time limit from which on a program's start may be told late.
const holdFrom = 10 * hold

type server struct {
	executorv1.UnimplementedExecutorServiceServer
	cfg      Config
	engine   engine.Engine
	memory   *memory
	fence    string
	mu       sync.Mutex // held while a call is served
	programs map[string]engine.Program
	out      *output
	dir      *outDir
	rest     *rest
}

// Describe implements the executor service.
func (s *server) Describe(context.Context, *executorv1.DescribeRequest) (*executorv1.DescribeResponse, error) {
	return &executorv1.DescribeResponse{
		Type: "wasm", Version: "1", Concurrency: 1,
		Attributes: map[string]string{wire.AttrEngine: s.engine.Name(), wire.AttrEngineVersion: s.engine.Version(), wire.AttrFence: s.fence},
	}, nil
}

// Serve implements the executor service. A status is for the parent: it used this process wrongly or something of
// the host failed. Everything that is the payload's is a Finish.
func (s *server) Serve(stream grpc.BidiStreamingServer[executorv1.ServeRequest, executorv1.ServeResponse]) error {
	if !s.mu.TryLock() {
		return status.Error(codes.ResourceExhausted, "this process serves one call, and runs one program at a time")
	}
	defer s.mu.Unlock()
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if req.GetStart() == nil {
			return status.Error(codes.InvalidArgument, "a request of Serve must have a Start")
		}
		if err := s.one(stream, req); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
	}
}

// one answers one request.
func (s *server) one(stream grpc.BidiStreamingServer[executorv1.ServeRequest, executorv1.ServeResponse], req *executorv1.ServeRequest) error {
	s.rest.busy.Store(true)
	defer func() { s.rest.busy.Store(false); s.rest.touch() }()
	for _, key := range req.GetDrop() {
		s.drop(hex.EncodeToString(key))
	}
	cpu := cpuTime()
	s.out.begin(stream, req.GetNumber())
	finish, err := s.execute(req.GetStart())
	if err != nil {
		return err
	}
	finish.Cpu = durationpb.New(cpuTime() - cpu)
	return s.out.finish(finish)
}

func (s *server) drop(key string) {
	if p, ok := s.programs[key]; ok {
		delete(s.programs, key)
		_ = p.Close()
	}
}

type parts struct {
	module, stdin, artefact *executorv1.Part
	inputs                  bool
}

// wanted tells whether the parent asks for what compiling gives.
func (p parts) wanted() bool { return p.artefact != nil && p.artefact.GetPath() == "" }

func sortParts(in []*executorv1.Part) parts {
	var p parts
	for _, part := range in {
		switch part.GetName() {
		case wire.PartModule:
			p.module = part
		case wire.PartStdin:
			p.stdin = part
		case wire.PartArtefact:
			p.artefact = part
		default:
			p.inputs = true
		}
	}
	return p
}

func (s *server) execute(start *executorv1.Start) (*executorv1.Finish, error) {
	p := sortParts(start.GetParts())
	if p.module == nil {
		return &executorv1.Finish{Reason: "PAYLOAD_INVALID", Message: "the payload has no module"}, nil
	}
	var options executorv1.WasmOptions
	if err := proto.Unmarshal(start.GetOptions(), &options); err != nil {
		return &executorv1.Finish{Reason: "PAYLOAD_INVALID", Message: "the options are no WasmOptions: " + err.Error()}, nil
	}
	program, err := s.program(p)
	var bad *engine.CompileError
	switch {
	case errors.As(err, &bad):
		return &executorv1.Finish{Reason: "COMPILE", Message: bad.Error()}, nil
	case err != nil:
		return nil, err
	}
	limit := min(start.GetLimits().GetMemory(), engine.MaxMemory)
	if err := s.memory.allow(limit + overhead); err != nil {
		return nil, err
	}
	cfg := s.config(&options, p, program.Files())
	cfg.Memory = int64(limit) //nolint:gosec // bounded above
	// The parent keeps what was compiled only from a process in which nothing ran: it must not wait for what else comes.
	if err := s.out.start(!p.wanted() && start.GetLimits().GetTime().AsDuration() >= holdFrom); err != nil {
		return nil, err
	}
	result, err := program.Run(cfg)
	if err != nil {
		return nil, err
	}
	if program.Files() {
		var bad *badName
		if err := s.dir.send(s.out); errors.As(err, &bad) {
			f := finish(result)
			if f.Reason == "" {
				f.Reason, f.Message = "OUTPUT_NAME", bad.Error()
			}
			return f, nil
		} else if err != nil {
			return nil, err
		}
	}
	return finish(result), nil
}

func (s *server) config(options *executorv1.WasmOptions, p parts, files bool) engine.Config {
	cfg := engine.Config{Args: append([]string{"program"}, options.GetArgs()...), Stdout: s.out.stream(wire.OutputStdout), Stderr: s.out.stream(wire.OutputStderr)}
	for _, e := range options.GetEnv() {
		cfg.Env = append(cfg.Env, engine.EnvVar{Name: e.GetName(), Value: e.GetValue()})
	}
	cfg.Stdin, cfg.StdinPath = p.stdin.GetInline(), p.stdin.GetPath()
	if files {
		cfg.Out = wire.DirOut
	}
	if files && p.inputs {
		cfg.In = wire.DirRun + "/" + wire.DirIn
	}
	return cfg
}

func finish(r engine.Result) *executorv1.Finish {
	f := &executorv1.Finish{ExitCode: r.ExitCode, PeakMemory: uint64(r.PeakMemory)} //nolint:gosec // never negative
	switch {
	case r.OutOfMemory:
		f.Reason, f.Message = "MEMORY_LIMIT", fmt.Sprintf("the program failed after its memory could not grow beyond %d bytes", r.PeakMemory)
		if r.Trap != "" {
			f.Message += ": " + r.Trap
		}
	case r.Trap != "":
		f.Reason, f.Message = "TRAP", "the program trapped: "+r.Trap
	}
	return f
}

// program is the one that is still here, else the one that was compiled before, else a newly compiled one.
func (s *server) program(p parts) (engine.Program, error) {
	key := hex.EncodeToString(p.module.GetSha256())
	if p, ok := s.programs[key]; ok {
		return p, nil
	}
	module := func() ([]byte, error) {
		switch {
		case p.module.GetPath() != "":
			return os.ReadFile(p.module.GetPath())
		case len(p.module.GetInline()) > 0:
			return p.module.GetInline(), nil
		}
		return nil, fmt.Errorf("module %s is not here any more", key)
	}
	if err := s.memory.allow(s.cfg.CompileMemory); err != nil {
		return nil, err
	}
	var program engine.Program
	err := engine.ErrArtefact
	if p.artefact.GetPath() != "" {
		program, err = s.engine.Load(p.artefact.GetPath(), module)
	}
	if errors.Is(err, engine.ErrArtefact) {
		program, err = s.compile(module, p.wanted())
	}
	if err != nil {
		return nil, err
	}
	s.programs[key] = program
	return program, nil
}

func (s *server) compile(module func() ([]byte, error), wanted bool) (engine.Program, error) {
	b, err := module()
	if err != nil {
		return nil, err
	}
	program, err := s.engine.Compile(b)
	if err != nil {
		return nil, err
	}
	if wanted {
		w := s.out.stream(wire.PartArtefact)
		if err := program.Artefact(w); err != nil {
			return nil, err
		}
		if err := s.out.flush(); err != nil {
			return nil, err
		}
	}
	return program, nil
}
