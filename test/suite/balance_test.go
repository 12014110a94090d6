package suite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// sleepModule is a WASI command that waits, and takes no CPU meanwhile: poll_oneoff with one subscription to the monotonic clock.
func sleepModule(d time.Duration) []byte {
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	sub := make([]byte, 48) // userdata 8, tag 1 (0: clock), padding, clock id at 16, timeout at 24, precision, flags
	sub[16] = 1
	binary.LittleEndian.PutUint64(sub[24:], uint64(d))
	const i32, funcType, block = 0x7f, 0x60, 0x00
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = append(b, section(1, 2, funcType, 4, i32, i32, i32, i32, 1, i32, funcType, 0, 0)...)
	b = append(b, section(2, append(append(append([]byte{1}, name("wasi_snapshot_preview1")...), name("poll_oneoff")...), 0, 0)...)...)
	b = append(b, section(3, 1, 1)...)
	b = append(b, section(5, 1, 0, 1)...) // one page of memory
	b = append(b, section(7, append(append(append([]byte{2}, name("memory")...), 2, 0), append(name("_start"), 0, 1)...)...)...)
	// poll_oneoff(subscriptions at 0, events at 64, 1, count at 48)
	b = append(b, section(10, 1, 14, block, 0x41, 0, 0x41, 0xc0, 0, 0x41, 1, 0x41, 48, 0x10, 0, 0x1a, 0x0b)...)
	return append(b, section(11, append([]byte{1, 0, 0x41, 0, 0x0b, byte(len(sub))}, sub...)...)...)
}

// completed runs a task and returns it when it has completed.
func completed(ctx context.Context, node nodev1.NodeServiceClient, spec *taskv1.TaskSpec) (*taskv1.Task, error) {
	stream, err := node.RunTask(ctx, &nodev1.RunTaskRequest{Spec: spec})
	if err != nil {
		return nil, err
	}
	var task *taskv1.Task
	for {
		r, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && task.GetState() == "COMPLETED":
			return task, nil
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("task %s ended as %s: %v", task.GetId(), task.GetState(), task.GetError())
		case err != nil:
			return nil, err
		}
		if t := r.GetTask(); t != nil {
			task = t
		}
	}
}

func sleepSpec(d time.Duration, placement *taskv1.PlacementPolicy) *taskv1.TaskSpec {
	return &taskv1.TaskSpec{Type: "wasm", Placement: placement, Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{
		Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: sleepModule(d)}}}}}
}

// TestBurstThroughOneProvider: a burst that comes in through one entry provider is spread over all of them.
func TestBurstThroughOneProvider(t *testing.T) {
	const providers, tasks = 10, 500
	n := ownNetwork(t, providers, 1)
	node, err := n.Node(consumer)
	if err != nil {
		t.Fatal(err)
	}
	peers, err := node.ListPeers(t.Context(), &nodev1.ListPeersRequest{})
	if err != nil || len(peers.GetPeers()) != providers {
		t.Fatalf("%d peers, %v", len(peers.GetPeers()), err)
	}
	entry := &taskv1.PlacementPolicy{Providers: []string{peers.GetPeers()[0].GetPeerId()}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	ran := make(chan string, tasks)
	begin := time.Now()
	for range tasks {
		group.Go(func() error {
			task, err := completed(ctx, node, sleepSpec(200*time.Millisecond, entry))
			ran <- task.GetProvider()
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	close(ran)
	by := map[string]int{}
	for p := range ran {
		by[p]++
	}
	t.Logf("%d tasks in %v: %v", tasks, time.Since(begin).Round(time.Millisecond), by)
	for p, k := range by {
		if fair := tasks / providers; k > 2*fair {
			t.Errorf("provider …%s got %d tasks, its fair share is %d", p[len(p)-8:], k, fair)
		}
	}
}
