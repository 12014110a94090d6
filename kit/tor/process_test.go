package tor_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/tor"
)

// childEnv makes this test binary a program that starts the tor it names and waits.
const childEnv = "TOR_TEST_PARENT_OF"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		p, err := tor.StartProcess(tor.ProcessConfig{Program: tor.Program{Path: path}, Torrc: path + ".torrc", Line: func(s string) { fmt.Println(s) }})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		<-p.Done()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func startFake(t *testing.T, script string, cfg tor.ProcessConfig) *tor.Process {
	t.Helper()
	path := fakeTor(t, script)
	cfg.Program, cfg.Torrc = tor.Program{Path: path}, path+".torrc"
	p, err := tor.StartProcess(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(0) })
	return p
}

// gone waits until a process is no more.
func gone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for alive(pid) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// alive tells whether a process runs: one that only waits to be reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return runtime.GOOS != "linux" && syscall.Kill(pid, 0) == nil
	}
	return !strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " Z")
}

func TestProcessSaysHowFarItIsAndWhyItEnded(t *testing.T) {
	var said []string
	var far []tor.Bootstrap
	p := startFake(t, `echo "x [notice] Bootstrapped 5% (conn): Connecting"
echo "x [warn] Could not bind to 127.0.0.1:1: Address already in use."
echo "x [err] Reading config failed"
echo "x [warn] and a warning after it"
head -c 20000 /dev/zero | tr '\0' y
echo; printf last; exit 3`, tor.ProcessConfig{Line: func(s string) { said = append(said, s) }, Bootstrap: func(b tor.Bootstrap) { far = append(far, b) }})
	<-p.Done()
	if len(said) != 6 || len(said[4]) != 8<<10 || said[5] != "last" {
		t.Errorf("%d lines, the last %.40q", len(said), said)
	}
	if len(far) != 1 || far[0].Percent != 5 || far[0].Tag != "conn" {
		t.Errorf("%+v", far)
	}
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "exit status 3: Reading config failed") {
		t.Errorf("%v", err)
	}
	if alive(p.PID()) {
		t.Error("it is still there")
	}
	p.Stop(time.Minute) // does not wait
}

func TestProcessIsStopped(t *testing.T) {
	// One that ends when it is asked to, and one that does not and has a child of its own.
	ready := make(chan string, 2)
	line := func(s string) { ready <- s }
	kind := startFake(t, `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done`, tor.ProcessConfig{Line: line})
	<-ready
	kind.Stop(time.Minute)
	if s := <-ready; s != "bye" || kind.Err() != nil {
		t.Errorf("said %q, %v", s, kind.Err())
	}
	deaf := startFake(t, `trap '' TERM; sleep 600 & echo $!; wait; while :; do sleep 600; done`, tor.ProcessConfig{Line: line})
	child, err := strconv.Atoi(<-ready)
	if err != nil {
		t.Fatal(err)
	}
	if deaf.Err() != nil {
		t.Errorf("an error while it runs: %v", deaf.Err())
	}
	deaf.Stop(50 * time.Millisecond)
	gone(t, deaf.PID())
	gone(t, child)
}

func TestProcessEndsWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the kernel has no signal for the death of a parent")
	}
	fake := fakeTor(t, `echo $$; exec sleep 600`)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+fake)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Fatal("it does not run")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	gone(t, pid)
}

func TestProcessThatCannotStart(t *testing.T) {
	if _, err := tor.StartProcess(tor.ProcessConfig{Program: tor.Program{Path: "/nowhere/tor"}, Torrc: t.TempDir() + "/torrc"}); err == nil {
		t.Error("a program that is not there was started")
	}
}
