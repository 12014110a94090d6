package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/kit/logging"
	"github.com/shallot-net/shallot/kit/mtls"
	"github.com/shallot-net/shallot/kit/rpc"
	"github.com/shallot-net/shallot/kit/version"
)

// ParentFD names the variable with the number of an inherited pipe whose other end the parent holds: when the
// parent dies, however it dies, the pipe ends, and so does this process.
const ParentFD = "SHALLOT_PARENT_FD"

// CPUProfile names the variable with a folder for CPU profiles, PROCESS-PID.pprof, which are whole when the process ends.
const CPUProfile = "SHALLOT_CPUPROFILE"

// defaultMemory is a soft limit: near it the collector works harder, so that GOGC=400 does not cost memory.
const (
	defaultGOGC   = 400
	defaultMemory = 256 << 20
)

// Main runs a process and exits: 0 when fn returns nil or printed its help, else 1 with the error as one line on
// stderr, and with --health 0 when the process that runs with the same settings is ready. SIGINT, SIGTERM and the parent's death cancel fn's context; a second signal ends the process at once.
// --version, alone, prints the version instead.
func Main(process string, fn func(ctx context.Context, args []string) error) {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Printf("shallot-%s %s\n", process, version.String())
		os.Exit(0)
	}
	tune()
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s := <-signals
		cancel(fmt.Errorf("stopped by %v", s))
		<-signals
		os.Exit(130)
	}()
	watchParent(func() { cancel(errors.New("the parent process is gone")) })
	stopProfile := startProfile(process)
	err := Run(ctx, func(ctx context.Context) error { return fn(ctx, os.Args[1:]) })
	if asked := (*config.HealthAsked)(nil); errors.As(err, &asked) {
		err = checkHealth(ctx, asked)
	}
	os.Exit(finish(process, os.Stderr, os.Getenv("SHALLOT_"+strings.ToUpper(process)+"_LOG_FORMAT"), errors.Join(err, stopProfile())))
}

// checkHealth asks with the process's own certificate: a service may call itself, to ask for its health.
func checkHealth(ctx context.Context, asked *config.HealthAsked) error {
	creds, err := mtls.Open(asked.TLSDir, mtls.Options{})
	if err != nil {
		return err
	}
	return rpc.CheckHealth(ctx, asked.Listen, rpc.ClientConfig{Service: asked.Process, Peer: asked.Process, TLS: creds})
}

// startProfile writes a CPU profile of the whole process into the folder that CPUProfile names, if it does.
func startProfile(process string) (stop func() error) {
	dir := os.Getenv(CPUProfile)
	if dir == "" {
		return func() error { return nil }
	}
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s-%d.pprof", process, os.Getpid())), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return func() error { return fmt.Errorf("no CPU profile, which %s asks for: %w", CPUProfile, err) }
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return func() error { return errors.Join(err, f.Close()) }
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}
}

// finish says why the process ends. Where the environment asks for JSON the line is JSON like those before it, for whoever collects them: the
// settings may be what could not be read, so only the environment is asked. A person at a terminal gets a sentence.
func finish(process string, stderr io.Writer, format string, err error) int {
	if err == nil || errors.Is(err, config.ErrHelp) {
		return 0
	}
	why := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	if format == "json" {
		logging.New(stderr, "error", format, process).Error("the process ends", logging.Err(errors.New(why)))
		return 1
	}
	fmt.Fprintf(stderr, "shallot-%s: %s\n", process, why)
	return 1
}

func tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(defaultGOGC)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(defaultMemory)
	}
}

func watchParent(gone func()) {
	n, err := strconv.Atoi(os.Getenv(ParentFD))
	if err != nil || n < 3 {
		return
	}
	_ = os.Unsetenv(ParentFD) // our own children have no such descriptor
	syscall.CloseOnExec(n)
	pipe := os.NewFile(uintptr(n), "parent")
	go func() {
		_, _ = io.Copy(io.Discard, pipe)
		gone()
	}()
}
