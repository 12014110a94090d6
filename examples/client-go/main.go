// Command client-go submits a sum to a node over gRPC, watches it until it has ended, and prints its result:
//
//	go run . unix:HOME/run/node.sock 0.1 0.2
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: client-go unix:HOME/run/node.sock NUMBER...   (`shallot node` names the home)")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := sum(ctx, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "sum:", err) // it says what was wrong, with which input, and what would mend it
		os.Exit(1)
	}
}

func sum(ctx context.Context, address string, addends []string) error {
	// A Unix socket is guarded by its permissions. From other machines it is mutual TLS: `shallot client add` makes the files.
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	node := nodev1.NewNodeServiceClient(conn)

	// Repeated with the same request id it is the same task: so it may be tried again after anything.
	submitted, err := node.SubmitTask(ctx, &nodev1.SubmitTaskRequest{RequestId: rand.Text(), Spec: &taskv1.TaskSpec{
		Type: "sum", Payload: &taskv1.TaskSpec_Sum{Sum: &taskv1.SumPayload{Addends: addends}},
	}})
	if err != nil {
		return err
	}
	id := submitted.GetTask().GetId()

	// The task now and after each change, until it has ended.
	changes, err := node.WatchTask(ctx, &nodev1.WatchTaskRequest{TaskId: id})
	if err != nil {
		return err
	}
	if err := each(changes, func(c *nodev1.WatchTaskResponse) { fmt.Fprintln(os.Stderr, c.GetTask().GetState()) }); err != nil {
		return err
	}
	pieces, err := node.GetResult(ctx, &nodev1.GetResultRequest{TaskId: id})
	if err != nil {
		return err
	}
	return each(pieces, func(p *nodev1.GetResultResponse) { os.Stdout.Write(p.GetData()) })
}

// each calls fn with all that comes on a stream.
func each[T any](stream grpc.ServerStreamingClient[T], fn func(*T)) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fn(m)
	}
}
