package floor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/test/internal/measure"
)

// Figures are what one variant of the floor takes.
type Figures struct {
	SumP50, SumP99, WasmP50, WasmP99 time.Duration
	// TasksPerSecond and CPUPerTask with 64 small wasm tasks in flight; CPU over all processes, the client included.
	TasksPerSecond float64
	CPUPerTask     time.Duration
}

// Run starts the six servers of a variant as children of this program (see Child) and measures: sequential tasks in a row, then many
// with 64 in flight.
func Run(express bool, sequential, many int) (f Figures, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("floor: %v", r)
		}
	}()
	dir, err := os.MkdirTemp("", "floor")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	pids := []int{os.Getpid()}
	start := func(role, arg string) string {
		cmd := exec.Command("/proc/self/exe", "floor-child", role, dir, arg, fmt.Sprint(express))
		cmd.Env = append(os.Environ(), "GOGC=400")
		cmd.Stderr = os.Stderr
		stdin, err := cmd.StdinPipe()
		must(err)
		stdout, err := cmd.StdoutPipe()
		must(err)
		must(cmd.Start())
		pids = append(pids, cmd.Process.Pid)
		go func() { _ = cmd.Wait() }()
		line, err := bufio.NewReader(stdout).ReadString('\n')
		must(err)
		children = append(children, stdin.Close)
		return strings.TrimSpace(line)
	}
	children = nil
	defer func() {
		for _, stop := range children {
			_ = stop()
		}
	}()
	start("broker_c", start("broker_p", ""))
	recipient := start("task_p", "")
	start("node_p", "")
	start("task_c", "")
	start("node_c", recipient)
	client := connect(dir, "node_c")
	defer client.Close()

	sum, wasm := []byte("1 2 39"), append([]byte{0}, SmallModule()...)
	for range 100 {
		task(client, sum, "42\n")
		task(client, wasm, "done\n")
	}
	row := func(payload []byte, want string) (p50, p99 time.Duration) {
		return measure.Latencies(sequential, func() { task(client, payload, want) })
	}
	f.SumP50, f.SumP99 = row(sum, "42\n")
	f.WasmP50, f.WasmP99 = row(wasm, "done\n")
	InFlight(many/10, 64, func() { task(client, wasm, "done\n") })
	cpu, begin := measure.CPU(pids...), time.Now()
	InFlight(many, 64, func() { task(client, wasm, "done\n") })
	f.TasksPerSecond = float64(many) / time.Since(begin).Seconds()
	f.CPUPerTask = (measure.CPU(pids...) - cpu) / time.Duration(many)
	return f, nil
}

var children []func() error

// InFlight does n things, so many at a time.
func InFlight(n, width int, do func()) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range width {
		wg.Go(func() {
			for next.Add(1) <= int64(n) {
				do()
			}
		})
	}
	wg.Wait()
}

func task(c *grpc.ClientConn, payload []byte, want string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := open(ctx, c)
	must(s.SendMsg(&payload))
	must(s.CloseSend())
	var result []byte
	must(s.RecvMsg(&result))
	if string(result) != want {
		panic(fmt.Sprintf("the result is %q, want %q", result, want))
	}
	_ = s.RecvMsg(&result)
}
