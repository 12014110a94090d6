package faults_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/faults"
)

func mount(dir string, size int64) error {
	if os.Geteuid() != 0 {
		return errors.New("mounting a small one takes root")
	}
	return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size="+itoa(size))
}

func unmount(dir string) error { return unix.Unmount(dir, 0) }

// apply does what the plan says, and returns when everything is well again.
func (w *world) apply(plan []faults.Fault) {
	begin := time.Now()
	var over sync.WaitGroup
	for _, f := range plan {
		<-time.After(time.Until(begin.Add(f.At)))
		w.t.Log(f)
		if f.Kind == faults.Blackout {
			over.Wait() // a blackout while a process is stopped, or a half cut off, would leave nobody to mend that
			w.blackout()
			w.count(f.Kind)
			continue
		}
		mend := w.do(f)
		if mend == nil {
			continue
		}
		w.count(f.Kind)
		over.Go(func() {
			<-time.After(f.For)
			mend()
		})
	}
	over.Wait()
}

func (w *world) count(k faults.Kind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hurt[k]++
}

// do begins a fault. mend ends it; nil when there was nothing to hurt, such as a process that is just being started again.
func (w *world) do(f faults.Fault) (mend func()) {
	n := w.network()
	switch f.Kind {
	case faults.Kill:
		if n.Signal(f.Node, f.Process, syscall.SIGKILL) != nil {
			return nil
		}
		return func() {}
	case faults.Stall, faults.Silence:
		all, err := n.Processes(f.Node)
		if err != nil {
			w.t.Errorf("processes of %s: %v", f.Node, err)
		}
		if f.Kind == faults.Stall {
			all = slices.DeleteFunc(all, func(p dev.Process) bool { return p.Name != f.Process })
		}
		return signal(all)
	case faults.Drop:
		w.deny(map[string][]string{f.Node: f.Others})
		return func() { w.deny(nil) }
	case faults.Cut:
		apart := map[string][]string{}
		for _, node := range n.Nodes() {
			if !slices.Contains(f.Others, node) {
				apart[node] = f.Others
			}
		}
		w.deny(apart)
		return func() { w.deny(nil) }
	case faults.Fill:
		return w.fill(f.Node)
	case faults.Jump:
		return w.jump(f.By)
	case faults.Blackout:
	}
	return nil
}

// signal stops processes, and continues them.
func signal(all []dev.Process) (mend func()) {
	if len(all) == 0 {
		return nil
	}
	for _, p := range all {
		_ = syscall.Kill(p.Pid, syscall.SIGSTOP)
	}
	return func() {
		for _, p := range all {
			_ = syscall.Kill(p.Pid, syscall.SIGCONT)
		}
	}
}

// deny makes nodes refuse others, on both sides, and lets all that are not named go together again. A node reads its list when it changes.
func (w *world) deny(apart map[string][]string) {
	lists := map[string][]string{}
	for node, others := range apart {
		for _, o := range others {
			lists[node] = append(lists[node], w.peers[o])
			lists[o] = append(lists[o], w.peers[node])
		}
	}
	for node := range w.peers {
		err := home.WriteFile(filepath.Join(w.dir, node, "peers.deny"), []byte(strings.Join(lists[node], "\n")), 0o600)
		if err != nil && node != w.filled { // a full disk takes no list either
			w.t.Errorf("the list of %s: %v", node, err)
		}
	}
}

// fill writes until the node's disk is full.
func (w *world) fill(node string) (mend func()) {
	path := filepath.Join(w.dir, node, "ballast")
	f, err := os.Create(path)
	if err != nil {
		w.t.Errorf("fill the disk of %s: %v", node, err)
		return nil
	}
	defer f.Close()
	for b := make([]byte, 1<<20); len(b) > 0; {
		if _, err := f.Write(b); err != nil {
			b = b[:len(b)/2]
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			w.t.Errorf("empty the disk of %s: %v", node, err)
		}
	}
}

// jump sets the machine's clock, and back by what the monotonic one says has passed.
func (w *world) jump(by time.Duration) (mend func()) {
	before := time.Now()
	set := func(to time.Time) error {
		tv := unix.NsecToTimeval(to.UnixNano())
		return unix.Settimeofday(&tv)
	}
	if err := set(before.Add(by)); err != nil {
		w.t.Errorf("set the clock: %v", err)
		return nil
	}
	return func() {
		if err := set(before.Add(time.Since(before))); err != nil { // the difference is monotonic
			w.t.Errorf("set the clock back: %v", err)
		}
	}
}

// blackout kills everything at once, and starts it again on what is on disk.
func (w *world) blackout() {
	n := w.network()
	all, _ := n.Leftovers()
	w.mu.Lock()
	w.net = nil
	w.mu.Unlock()
	_ = syscall.Kill(n.Pid(), syscall.SIGKILL)
	for _, p := range all {
		_ = syscall.Kill(p.Pid, syscall.SIGKILL)
	}
	<-n.Exited()
	if !eventually(10*time.Second, func() bool { left, err := n.Leftovers(); return err == nil && len(left) == 0 }) {
		w.t.Error("processes outlive their supervisor")
	}
	bin, err := dev.Bin()
	if err != nil {
		w.t.Error(err)
	}
	next, err := dev.Start(context.Background(), dev.Config{Bin: bin, Dir: w.dir, Providers: providers, Consumers: consumers})
	if err != nil {
		w.t.Errorf("after a blackout: %v", err)
		next = n
	}
	w.mu.Lock()
	w.net = next
	w.mu.Unlock()
}
