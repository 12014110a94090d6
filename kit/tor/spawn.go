package tor

import (
	"os/exec"
	"runtime"
	"sync"
)

// spawner starts every tor from one thread that lives as long as the program: the kernel's signal for the death of a parent is sent when the *thread* that made
// the child ends, and Go's threads may.
var spawner = sync.OnceValue(func() chan<- spawn {
	requests := make(chan spawn)
	go func() {
		runtime.LockOSThread()
		for r := range requests {
			r.done <- r.cmd.Start()
		}
	}()
	return requests
})

type spawn struct {
	cmd  *exec.Cmd
	done chan error
}

func start(cmd *exec.Cmd) error {
	s := spawn{cmd, make(chan error, 1)}
	spawner() <- s
	return <-s.done
}
