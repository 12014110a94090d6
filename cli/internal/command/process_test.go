package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/cli/internal/clitest"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/home"
)

// program is the command as a real process, with stand-ins beside it.
type program struct {
	*exec.Cmd
	stdout, stderr lockedBuffer
	ended          chan struct{}
}

func startProgram(t *testing.T, bin string, env []string, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(filepath.Join(bin, "shallot"), args...), ended: make(chan struct{})}
	p.Env = append(os.Environ(), env...)
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("shallot %s said:\n%s", strings.Join(args, " "), &p.stderr)
		}
	})
	return p
}

func (p *program) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not in time: %s; it said\n%s", what, &p.stderr)
		case <-tick.C:
		}
	}
}

func (p *program) awaitLine(t *testing.T, line string) {
	t.Helper()
	p.await(t, line, func() bool { return strings.Contains("\n"+p.stderr.String(), "\n"+line+"\n") })
}

// code waits for the end and returns the exit code.
func (p *program) code(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Fatalf("it did not end; it said\n%s", &p.stderr)
	}
	return p.ProcessState.ExitCode()
}

func processesUnder(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if args := bytes.Split(data, []byte{0}); err == nil && len(args) > 2 && (string(args[1]) == "--home" || string(args[1]) == "-f") && strings.HasPrefix(string(args[2]), dir) {
			found = append(found, string(bytes.ReplaceAll(data, []byte{0}, []byte{' '})))
		}
	}
	return found
}

func TestDevAsAUserSeesIt(t *testing.T) {
	t.Parallel()
	bin, data := clitest.Install(t), t.TempDir()
	env := []string{"XDG_DATA_HOME=" + data}
	dir := filepath.Join(data, "shallot-dev")
	dev := startProgram(t, bin, env, "dev", "--providers", "2", "--output", "json")
	dev.awaitLine(t, "ready")
	dev.await(t, "a document on stdout", func() bool { return strings.HasSuffix(dev.stdout.String(), "}\n") })
	var doc struct{ Nodes []supervisor.ReadyNode }
	if err := json.Unmarshal([]byte(dev.stdout.String()), &doc); err != nil || len(doc.Nodes) != 3 || doc.Nodes[2].Home != filepath.Join(dir, "consumer-1") {
		t.Errorf("stdout is %s, %v", &dev.stdout, err)
	}

	second := startProgram(t, bin, env, "dev")
	if code := second.code(t); code != exitState || !strings.Contains(second.stderr.String(), "pid "+itoa(dev.Process.Pid)) {
		t.Errorf("a second run: exit code %d, %s", code, &second.stderr)
	}

	// Without --home: the first consumer of the running network, and a word about it.
	sum := startProgram(t, bin, env, "run", "sum", "-1", "7")
	if code := sum.code(t); code != 0 || sum.stdout.String() != "6\n" || !strings.Contains(sum.stderr.String(), "using consumer-1 in "+dir) {
		t.Errorf("run: exit code %d, %s%s", code, &sum.stdout, &sum.stderr)
	}
	node := startProgram(t, bin, env, "node", "--output", "json")
	node.code(t)
	var info struct {
		Role, GatewayURL, TokenFile string
		Processes                   []struct {
			Name  string
			PID   int
			State string
		}
	}
	if err := json.Unmarshal([]byte(strings.NewReplacer("gateway_url", "GatewayURL", "token_file", "TokenFile").Replace(node.stdout.String())), &info); err != nil {
		t.Fatal(err)
	}
	if info.Role != "consumer" || !strings.HasPrefix(info.GatewayURL, "http://127.0.0.1:") || info.TokenFile == "" || len(info.Processes) != 4 {
		t.Errorf("node is %+v", info)
	}
	for _, p := range info.Processes {
		if p.PID == 0 || p.State != "serving" {
			t.Errorf("process is %+v", p)
		}
	}
	doctor := startProgram(t, bin, env, "--home", dir, "doctor", "--output", "json")
	if code := doctor.code(t); code != 0 || strings.Contains(doctor.stdout.String(), `"wrong"`) || !strings.Contains(doctor.stdout.String(), `"healthy": true`) {
		t.Errorf("doctor: exit code %d, %s", code, &doctor.stdout)
	}

	begin := time.Now()
	if err := dev.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := dev.code(t); code != 0 || time.Since(begin) > 5*time.Second {
		t.Errorf("after Ctrl-C: exit code %d, %v", code, time.Since(begin))
	}
	if left := processesUnder(t, dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	gone := startProgram(t, bin, env, "peers")
	if code := gone.code(t); code != exitNoNode || !strings.Contains(gone.stderr.String(), "shallot dev") {
		t.Errorf("without a node: exit code %d, %s", code, &gone.stderr)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func TestKillingTheSupervisorLeavesNoProcess(t *testing.T) {
	t.Parallel()
	bin, dir := clitest.Install(t), t.TempDir()
	dev := startProgram(t, bin, nil, "dev", "--home", dir, "--providers", "1", "--consumers", "1")
	dev.awaitLine(t, "ready")
	if n := len(processesUnder(t, dir)); n != 10 {
		t.Fatalf("%d processes", n)
	}
	if err := dev.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	dev.code(t)
	dev.await(t, "no process is left", func() bool { return len(processesUnder(t, dir)) == 0 })
	// What it left behind does not keep the next one from starting.
	again := startProgram(t, bin, nil, "dev", "--home", dir, "--providers", "1", "--consumers", "1")
	again.awaitLine(t, "ready")
	if err := again.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := again.code(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestUpAsAUserSeesIt(t *testing.T) {
	t.Parallel()
	bin, data := clitest.Install(t), t.TempDir()
	env := []string{"XDG_DATA_HOME=" + data}
	up := startProgram(t, bin, env, "up", "--role", "provider", "--verbose", "--listen", "/ip4/127.0.0.1/tcp/4242", "--bootstrap", "/ip4/192.0.2.1/tcp/1/p2p/x", "--bootstrap", "/ip4/192.0.2.2/tcp/1/p2p/y")
	up.awaitLine(t, "ready")
	h, err := home.Find(filepath.Join(data, "shallot"))
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(processesUnder(t, h.Dir), "\n")
	for _, want := range []string{"--listen-addrs /ip4/127.0.0.1/tcp/4242", "--bootstrap /ip4/192.0.2.1/tcp/1/p2p/x,/ip4/192.0.2.2/tcp/1/p2p/y", "shallot-metric"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not on a command line of\n%s", want, all)
		}
	}
	run := startProgram(t, bin, env, "run", "sum", "1")
	if code := run.code(t); code != exitRun || !strings.Contains(run.stderr.String(), "only a consumer") {
		t.Errorf("run at a provider: exit code %d, %s", code, &run.stderr)
	}
	// Its node service is gone for good: the supervisor's knowledge is shown, with a code that says so.
	if err := os.WriteFile(filepath.Join(h.Dir, "crash.node"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	state, err := supervisor.ReadState(h)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range state.Processes {
		if p.Name == "node" {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	up.await(t, "it has died again", func() bool { return strings.Contains(up.stderr.String(), "a file says that it must die") })
	node := startProgram(t, bin, env, "node", "--output", "json")
	if code := node.code(t); code != exitNoNode || !strings.Contains(node.stdout.String(), `"role": "provider"`) {
		t.Errorf("node: exit code %d, %s", code, &node.stdout)
	}
	doctor := startProgram(t, bin, env, "doctor")
	if code := doctor.code(t); code != exitFailed || !strings.Contains(doctor.stdout.String(), "process node") || !strings.Contains(doctor.stdout.String(), "it must die") {
		t.Errorf("doctor: exit code %d, %s", code, &doctor.stdout)
	}
	if err := up.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := up.code(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	consumer := startProgram(t, bin, env, "up", "--role", "consumer")
	if code := consumer.code(t); code != exitState || !strings.Contains(consumer.stderr.String(), "home of a provider") {
		t.Errorf("the other role: exit code %d, %s", code, &consumer.stderr)
	}
}

// Signals as a terminal sends them, to the real program.
func TestRealCtrlC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bin := clitest.Install(t)
	run := startProgram(t, bin, nil, "--home", w.home, "run", "wasm", w.script("hang"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w.node.AwaitTask(ctx, "RUNNING")
	if err := run.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := run.code(t); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, &run.stderr)
	}
}

// A reader of stderr that goes away does not end the network; a terminal that goes away ends it in good order.
func TestDevOutlivesItsReaderAndEndsWithItsTerminal(t *testing.T) {
	t.Parallel()
	bin, dir := clitest.Install(t), t.TempDir()
	cmd := exec.Command(filepath.Join(bin, "shallot"), "dev", "--home", dir, "--providers", "1", "--consumers", "0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && lines.Text() != "ready" {
	}
	_ = stderr.Close()
	h, err := home.Find(filepath.Join(dir, "provider-1"))
	if err != nil {
		t.Fatal(err)
	}
	metric := func() supervisor.ProcessState {
		s, err := supervisor.ReadState(h)
		if err != nil {
			t.Fatal(err)
		}
		return s.Processes[2]
	}
	if err := syscall.Kill(metric().PID, syscall.SIGKILL); err != nil { // that is worth a line
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for metric().Restarts == 0 || metric().PID == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the process was not started again")
		}
	}
	end := syscall.SIGHUP
	if signal.Ignored(end) { // these tests run under nohup, which dev respects
		end = syscall.SIGTERM
	}
	if err := cmd.Process.Signal(end); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(15*time.Second, func() { _ = cmd.Process.Kill() }).Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if left := processesUnder(t, dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}
