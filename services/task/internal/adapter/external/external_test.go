package external_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/external"
	"github.com/shallot-net/shallot/services/task/internal/adapter/external/externaltest"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

type do = externaltest.Do

// sink keeps what a run gives.
type sink struct {
	mu       sync.Mutex
	started  int
	bodies   map[string]*bytes.Buffer
	progress []string
	fail     error
	got      chan struct{}
}

func newSink() *sink {
	return &sink{bodies: map[string]*bytes.Buffer{}, got: make(chan struct{}, 1024)}
}

func (s *sink) Started() { s.started++; s.got <- struct{}{} }

func (s *sink) Output(name string, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	if s.bodies[name] == nil {
		s.bodies[name] = &bytes.Buffer{}
	}
	s.bodies[name].Write(b)
	return nil
}

func (s *sink) Progress(f float64, text string) {
	s.progress = append(s.progress, fmt.Sprintf("%.2f %s", f, text))
}

func (s *sink) body(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bodies[name] == nil {
		return ""
	}
	return s.bodies[name].String()
}

// rig is an executor under test and the server that it calls.
type rig struct {
	*external.Executor
	server  *externaltest.Server
	path    string
	changed chan struct{}
}

func newRig(t *testing.T, server *externaltest.Server, change func(*external.Config)) *rig {
	t.Helper()
	r := &rig{server: server, path: filepath.Join(t.TempDir(), "s"), changed: make(chan struct{}, 64)}
	cfg := external.Config{Address: external.Address{Type: "odd", Endpoint: "unix:" + r.path}, Log: logging.New(t.Output(), "debug", "text", "test"),
		Probe: 50 * time.Millisecond, Grace: 100 * time.Millisecond, Stall: 300 * time.Millisecond, Blink: 100 * time.Millisecond, Patience: 200 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	e, err := external.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Executor = e
	e.OnChange(func() { r.changed <- struct{}{} })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		e.Close()
	})
	return r
}

// started is a rig whose server is there.
func started(t *testing.T, change func(*external.Config)) *rig {
	t.Helper()
	r := newRig(t, externaltest.New(t, "odd"), change)
	r.server.Start(r.path)
	r.wait(t, true)
	return r
}

// wait takes changes until the executor is here, or is not.
func (r *rig) wait(t *testing.T, here bool) {
	t.Helper()
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	for {
		if _, is := r.Present(); is == here {
			return
		}
		select {
		case <-r.changed:
		case <-timeout.C:
			t.Fatalf("present is still %v after 10 s", !here)
		}
	}
}

func runOf(d do, parts ...app.Part) app.Run {
	return app.Run{TaskID: strings.Repeat("ab", 16), Attempt: 3, Options: d.Options(), Parts: parts,
		Limits: app.Limits{Time: time.Minute, Memory: 1 << 30, Output: 1 << 20}}
}

func part(name string, b []byte) app.Part {
	return app.Part{Name: name, Size: int64(len(b)), SHA256: sha256.Sum256(b), Inline: b}
}

func TestARunIsHandedOverWhole(t *testing.T) {
	r := started(t, nil)
	file := filepath.Join(t.TempDir(), "large")
	large := bytes.Repeat([]byte("0123456789"), 30_000)
	if err := os.WriteFile(file, large, 0o600); err != nil {
		t.Fatal(err)
	}
	parts := []app.Part{part("stdin", []byte("small")), {Name: "input:large", Size: int64(len(large)), SHA256: sha256.Sum256(large), Path: file},
		part("input:middle", bytes.Repeat([]byte("m"), 100_000)), part("input:empty", nil)}
	s := newSink()
	out, err := r.Execute(t.Context(), runOf(do{Echo: true, Progress: 0.25, Text: "a\tquarter", Stderr: "log", Name: "output:dir/x", Exit: 3, Unknown: true}, parts...), s)
	if err != nil || out.ExitCode != 3 || out.Reason != "" {
		t.Fatalf("%+v, %v", out, err)
	}
	if want := "stdin:small" + "input:large:" + string(large) + "input:middle:" + strings.Repeat("m", 100_000) + "input:empty:"; s.body("stdout") != want {
		t.Errorf("stdout has %d bytes, want %d: %.80q", len(s.body("stdout")), len(want), s.body("stdout"))
	}
	if s.body("stderr") != "log" || s.body("output:dir/x") != "x" || s.started != 1 {
		t.Errorf("stderr %q, file %q, started %d times", s.body("stderr"), s.body("output:dir/x"), s.started)
	}
	if len(s.progress) != 1 || s.progress[0] != "0.25 a quarter" {
		t.Errorf("progress %q", s.progress)
	}
	starts, left := r.server.Starts()
	st := starts[0]
	if st.GetTaskId() != strings.Repeat("ab", 16) || st.GetAttempt() != 3 || st.GetLimits().GetTime().AsDuration() != time.Minute || st.GetLimits().GetOutput() != 1<<20 {
		t.Errorf("the executor got %v", st)
	}
	if left[0] < time.Minute || left[0] > 11*time.Minute {
		t.Errorf("the deadline leaves %v", left[0])
	}
	for _, p := range st.GetParts() {
		if p.GetPath() != "" {
			t.Errorf("%s is given by a path of the provider", p.GetName())
		}
	}
	// The same once more, as after a crash of the provider: the same key.
	if _, err := r.Execute(t.Context(), runOf(do{}), newSink()); err != nil {
		t.Fatal(err)
	}
	if starts, _ = r.server.Starts(); starts[1].GetTaskId() != st.GetTaskId() || starts[1].GetAttempt() != st.GetAttempt() {
		t.Errorf("repeated as %v", starts[1])
	}
}

// What an executor does wrong is an error, which is the provider's failure; what it says of the payload is an outcome.
func TestMisbehaviour(t *testing.T) {
	for name, c := range map[string]struct {
		do     do
		reason string // of the outcome; empty: an error
		says   string // in the error or the message
	}{
		"dies":                         {do{Die: true}, "", ""},
		"ends without a Finish":        {do{NoFinish: true}, "", "without a Finish"},
		"goes on after its Finish":     {do{After: true}, "", "went on after"},
		"bytes that are no message":    {do{Garbage: []byte{0xff, 0xff, 0xff}}, "", ""},
		"text that is no UTF-8":        {do{Garbage: []byte{0x12, 0x05, 0x12, 0x03, 0xff, 0xfe, 0xfd}}, "", ""},
		"a reason of its own shape":    {do{Reason: "because <script>"}, "", "UPPER_SNAKE"},
		"a message beyond 4 MiB":       {do{Huge: 5 << 20}, "", ""},
		"an internal error":            {do{Status: codes.Internal}, "", "as the options say"},
		"unavailable":                  {do{Status: codes.Unavailable}, "", ""},
		"never says a word":            {do{NeverRead: true}, "TIME_LIMIT", ""},
		"hangs":                        {do{Hang: true}, "TIME_LIMIT", "1s"},
		"hangs and is deaf":            {do{Deaf: true}, "TIME_LIMIT", ""},
		"more output than allowed":     {do{Stdout: 2 << 20}, "OUTPUT_LIMIT", "1048576"},
		"output without an end":        {do{Flood: true}, "OUTPUT_LIMIT", ""},
		"one large message of output":  {do{Huge: 2 << 20}, "OUTPUT_LIMIT", ""},
		"a payload that is invalid":    {do{Invalid: true}, "PAYLOAD_INVALID", "no good"},
		"a payload found bad later":    {do{Status: codes.InvalidArgument}, "PAYLOAD_INVALID", "as the options say"},
		"a failure with its own word":  {do{Reason: "NO_TEXT_FOUND", Message: "blank page"}, "NO_TEXT_FOUND", "blank page"},
		"progress that is not numbers": {do{NaN: true, Text: strings.Repeat("é", 300), Reason: "DONE"}, "DONE", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := started(t, nil)
			in := runOf(c.do)
			in.Limits.Time = time.Second
			s := newSink()
			begin := time.Now()
			out, err := r.Execute(t.Context(), in, s)
			if took := time.Since(begin); took > 4*time.Second {
				t.Errorf("it took %v", took)
			}
			switch {
			case c.reason == "" && err == nil:
				t.Fatalf("outcome %+v, want an error", out)
			case c.reason != "" && (err != nil || out.Reason != c.reason):
				t.Fatalf("outcome %+v, error %v, want %s", out, err, c.reason)
			}
			if text := fmt.Sprint(out.Message, err); !strings.Contains(text, c.says) {
				t.Errorf("it says %q, want %q in it", text, c.says)
			}
			if n := len(s.body("stdout")); n > 1<<20 {
				t.Errorf("%d bytes of output passed a limit of 1 MiB", n)
			}
			for _, p := range s.progress {
				if p != "0.00 "+strings.Repeat("é", 100) {
					t.Errorf("progress %q", p)
				}
			}
		})
	}
}

func TestPartsThatNobodyTakes(t *testing.T) {
	r := started(t, nil)
	_, err := r.Execute(t.Context(), runOf(do{NeverRead: true}, part("stdin", make([]byte, 8<<20))), newSink())
	if err == nil || !strings.Contains(err.Error(), "does not take the parts") {
		t.Errorf("error %v", err)
	}
	// A part whose file is gone is this provider's fault, and ends the call.
	_, err = r.Execute(t.Context(), runOf(do{}, app.Part{Name: "stdin", Size: 10, Path: filepath.Join(t.TempDir(), "gone")}), newSink())
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	// An executor may finish before it has seen everything.
	out, err := r.Execute(t.Context(), runOf(do{Status: codes.InvalidArgument}, part("stdin", make([]byte, 1<<20))), newSink())
	if err != nil || out.Reason != app.ReasonPayloadInvalid {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestTheEndOfTheRunIsTheEndOfTheCall(t *testing.T) {
	r := started(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	s := newSink()
	type result struct {
		out app.Outcome
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := r.Execute(ctx, runOf(do{Hang: true}), s)
		done <- result{out, err}
	}()
	<-s.got
	begin := time.Now()
	cancel()
	if got := <-done; got.err != nil || got.out.Reason != app.ReasonCancelled || time.Since(begin) > time.Second {
		t.Errorf("%+v after %v", got, time.Since(begin))
	}
	select {
	case <-r.server.Ended():
	case <-time.After(time.Second):
		t.Error("the executor has not heard of the end within a second")
	}
	s.fail = errors.New("the disk is full")
	if _, err := r.Execute(t.Context(), runOf(do{Flood: true}), s); !errors.Is(err, s.fail) {
		t.Errorf("a sink that fails gives %v", err)
	}
}

func TestItComesAndGoes(t *testing.T) {
	r := newRig(t, externaltest.New(t, "odd"), nil)
	if _, here := r.Present(); here || r.Describe().Version != "" {
		t.Error("it is here before it was started")
	}
	if _, err := r.Execute(t.Context(), runOf(do{}), newSink()); err == nil || !strings.Contains(err.Error(), "away") {
		t.Errorf("a run without an executor gives %v", err)
	}
	r.server.Start(r.path)
	r.wait(t, true)
	if c := r.Describe(); c.Type != "odd" || c.Version != "1" || c.Attributes["executor"] != "external" {
		t.Errorf("described as %+v", c)
	}
	if width, _ := r.Present(); width != 4 {
		t.Errorf("it takes %d side by side", width)
	}
	r.server.Health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	r.wait(t, false)
	r.server.Health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	r.wait(t, true)
	begin := time.Now()
	r.server.Stop()
	r.wait(t, false)
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("its death was noticed after %v", d)
	}
	r.server.About = &executorv1.DescribeResponse{Type: "odd", Version: "2", Memory: 1 << 20}
	r.server.NoHealth = true
	r.server.Start(r.path)
	r.wait(t, true)
	if c := r.Describe(); c.Version != "2" || c.MinMemory != 1<<20 || c.Attributes["min_memory"] != "1048576" {
		t.Errorf("it came back as %+v", c)
	}
}

// A run that comes while the executor is starting again waits for it.
func TestARunWaitsALittle(t *testing.T) {
	r := newRig(t, externaltest.New(t, "odd"), func(c *external.Config) { c.Patience = time.Minute })
	done := make(chan error, 1)
	go func() {
		_, err := r.Execute(t.Context(), runOf(do{}), newSink())
		done <- err
	}()
	r.server.Start(r.path)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// One that does a single thing at a time answers nothing else meanwhile.
func TestABusyExecutorIsNotAway(t *testing.T) {
	r := started(t, func(c *external.Config) { c.Answer = 50 * time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	s := newSink()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = r.Execute(ctx, runOf(do{Hang: true}), s)
	}()
	<-s.got
	r.server.Quiet(true)
	select {
	case <-r.changed:
		if _, here := r.Present(); !here {
			t.Error("it counts as away while it runs something")
		}
	case <-time.After(500 * time.Millisecond): // several looks
	}
	cancel()
	<-done
	r.wait(t, false) // now it has no excuse
}

func TestWhatItSaysOfItselfIsChecked(t *testing.T) {
	many := map[string]string{}
	for i := range 15 {
		many[fmt.Sprint("k", i)] = ""
	}
	for name, about := range map[string]*executorv1.DescribeResponse{
		"another type":          {Type: "wasm", Version: "1"},
		"no type":               {},
		"a long version":        {Type: "odd", Version: strings.Repeat("1", 65)},
		"a version in colours":  {Type: "odd", Version: "\x1b[31m1"},
		"many attributes":       {Type: "odd", Attributes: many},
		"a long attribute":      {Type: "odd", Attributes: map[string]string{"k": strings.Repeat("v", 257)}},
		"many words":            {Type: "odd", Attributes: map[string]string{"a": strings.Repeat("v", 256), "b": strings.Repeat("v", 256)}},
		"a line in a name":      {Type: "odd", Attributes: map[string]string{"a\nb": "v"}},
		"the provider's own":    {Type: "odd", Attributes: map[string]string{"executor": "internal"}},
		"more memory than ever": {Type: "odd", Memory: 1 << 62},
		"a large description":   {Type: "odd", Version: strings.Repeat("1", 1<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := externaltest.New(t, "odd")
			server.About = about
			asked := make(chan struct{}, 64)
			r := newRig(t, server, func(c *external.Config) { c.Log = logging.New(notify{asked}, "warn", "text", "test") })
			server.Start(r.path)
			<-asked // it was asked, and complained of
			for range 3 {
				select {
				case <-asked:
				case <-time.After(200 * time.Millisecond):
				}
			}
			if _, here := r.Present(); here {
				t.Error("it is taken for an executor")
			}
		})
	}
}

// notify tells of each write.
type notify struct{ c chan struct{} }

func (n notify) Write(b []byte) (int, error) {
	select {
	case n.c <- struct{}{}:
	default:
	}
	return len(b), nil
}

func TestAddresses(t *testing.T) {
	var a external.Address
	if err := a.UnmarshalText([]byte("ocr=unix:/run/ocr.sock")); err != nil || a.Type != "ocr" || !a.Unix() {
		t.Errorf("%+v, %v", a, err)
	}
	if b, _ := a.MarshalText(); string(b) != "ocr=unix:/run/ocr.sock" {
		t.Errorf("written as %s", b)
	}
	for endpoint, reason := range map[string]string{
		"127.0.0.1:7000": "", "[::1]:7000": "", "unix:/run/x": "",
		"192.0.2.7:7000": "ENDPOINT_INSECURE", "0.0.0.0:7000": "ENDPOINT_INSECURE", "example.com:1": "ENDPOINT_INSECURE", "nonsense": "ENDPOINT_INVALID",
		"unix:/" + strings.Repeat("x", 120): "ENDPOINT_INVALID",
	} {
		e, err := external.New(external.Config{Address: external.Address{Type: "odd", Endpoint: endpoint}})
		if err == nil {
			e.Close()
		}
		if (err == nil) != (reason == "") || err != nil && fault.From(err).Reason != reason {
			t.Errorf("%s: %v, want %q", endpoint, err, reason)
		}
	}
}
