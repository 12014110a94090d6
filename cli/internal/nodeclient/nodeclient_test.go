package nodeclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/cli/internal/clitest"
	"github.com/shallot-net/shallot/cli/internal/supervisor"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/grpctest"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

func reasonOf(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Reason
	}
	return ""
}

func TestDefaultPlacesFollowTheBaseDirectories(t *testing.T) {
	t.Parallel()
	env := map[string]string{"HOME": "/h"}
	get := func(k string) string { return env[k] }
	if p := DefaultPlaces(get); p.Up != "/h/.local/share/shallot" || p.Dev != "/h/.local/share/shallot-dev" {
		t.Errorf("places are %+v", p)
	}
	env["XDG_DATA_HOME"] = "relative"
	if p := DefaultPlaces(get); p.Up != "/h/.local/share/shallot" {
		t.Errorf("a relative directory was taken: %+v", p)
	}
	env["XDG_DATA_HOME"] = "/data"
	if p := DefaultPlaces(get); p.Up != "/data/shallot" || p.Dev != "/data/shallot-dev" {
		t.Errorf("places are %+v", p)
	}
}

// devNetwork writes what a dev network says of itself, and serves the nodes that are named.
func devNetwork(t *testing.T, dir string, pid int, served ...string) {
	t.Helper()
	n := supervisor.Network{PID: pid}
	for _, name := range []string{"provider-1", "consumer-1", "consumer-2"} {
		role, _, _ := strings.Cut(name, "-")
		h := filepath.Join(dir, name)
		if _, err := home.Open(h); err != nil {
			t.Fatal(err)
		}
		n.Nodes = append(n.Nodes, supervisor.NodePlace{Name: name, Role: role, Home: h})
	}
	for _, name := range served {
		clitest.Serve(t, clitest.NewNode(), filepath.Join(dir, name))
	}
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dev.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhichNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := Places{Up: filepath.Join(dir, "up"), Dev: filepath.Join(dir, "dev")}
	if _, err := Resolve(Asked{}, p); reasonOf(err) != "NODE_NOT_RUNNING" || !strings.Contains(err.Error(), "shallot dev") {
		t.Errorf("without any node: %v", err)
	}
	if _, err := Resolve(Asked{Home: p.Up}, p); reasonOf(err) != "HOME_NOT_FOUND" {
		t.Errorf("a home that is not there: %v", err)
	}
	if got, err := Resolve(Asked{Endpoint: "unix:/x"}, p); err != nil || got.Endpoint != "unix:/x" || got.Home != nil {
		t.Errorf("an endpoint: %+v, %v", got, err)
	}

	devNetwork(t, p.Dev, os.Getpid(), "consumer-1")
	for _, a := range []Asked{{Cert: "/c"}, {Cert: "/c", Home: "/h"}, {Cert: "/c", Endpoint: "unix:/x"}, {Endpoint: "unix:/x", Home: "/h"}} {
		if _, err := Resolve(a, p); reasonOf(err) != "TARGET_INVALID" {
			t.Errorf("%+v: %v", a, err)
		}
	}
	got, err := Resolve(Asked{}, p)
	if err != nil || got.Home.Dir != filepath.Join(p.Dev, "consumer-1") || !strings.Contains(got.Note, "consumer-1") {
		t.Errorf("a running dev: %+v, %v", got, err)
	}
	if got, err := Resolve(Asked{Home: p.Dev}, p); err != nil || got.Home.Dir != filepath.Join(p.Dev, "consumer-1") || !strings.Contains(got.Note, "dev network") {
		t.Errorf("a dev directory: %+v, %v", got, err)
	}
	if got, err := Resolve(Asked{Home: filepath.Join(p.Dev, "consumer-1")}, p); err != nil || got.Note != "" {
		t.Errorf("a home that was named: %+v, %v", got, err)
	}
	if got, err := Resolve(Asked{Home: filepath.Join(p.Dev, "provider-1")}, p); reasonOf(err) != "NODE_NOT_RUNNING" || got.Home == nil {
		t.Errorf("a node that does not run: %+v, %v", got, err)
	}

	if _, err := home.Open(p.Up); err != nil { // made, not running: the running dev is used
		t.Fatal(err)
	}
	if got, err := Resolve(Asked{}, p); err != nil || got.Home.Dir != filepath.Join(p.Dev, "consumer-1") {
		t.Errorf("beside this machine's node that does not run: %+v, %v", got, err)
	}
	clitest.Serve(t, clitest.NewNode(), p.Up)
	if got, err := Resolve(Asked{}, p); err != nil || got.Home.Dir != p.Up || got.Note != "" {
		t.Errorf("this machine's node: %+v, %v", got, err)
	}
}

func TestDevNetworkThatEndedIsNotUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	devNetwork(t, dir, 0)
	if _, err := Resolve(Asked{}, Places{Up: filepath.Join(dir, "up"), Dev: dir}); reasonOf(err) != "NODE_NOT_RUNNING" {
		t.Errorf("got %v", err)
	}
}

func TestPersist(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		told := 0
		c := &Client{patience: time.Minute, Trouble: func(error) { told++ }}
		gone := fault.Unavailable("GONE", "gone")
		begin, tries := time.Now(), 0
		err := c.persist(t.Context(), func(func()) error { tries++; return gone })
		if took := time.Since(begin); reasonOf(err) != "NODE_LOST" || !errors.Is(err, gone) || took < time.Minute || took > time.Minute+2*longestRetry {
			t.Errorf("gave up after %v with %v", took, err)
		}
		if told != 1 {
			t.Errorf("the user was told %d times", told)
		}
		if tries < 30 || tries > 60 {
			t.Errorf("%d tries in a minute", tries)
		}
		// A sign of life starts the minute again.
		begin, tries = time.Now(), 0
		_ = c.persist(t.Context(), func(moved func()) error {
			if tries++; tries < 20 {
				<-time.After(10 * time.Second)
				moved()
			}
			return gone
		})
		if took := time.Since(begin); took < 4*time.Minute {
			t.Errorf("gave up after %v although the node was alive", took)
		}
		for _, final := range []error{nil, io.EOF, fault.InvalidArgument("X", "x"), &WriteError{io.ErrClosedPipe}} {
			tries = 0
			if err := c.persist(t.Context(), func(func()) error { tries++; return final }); !errors.Is(err, final) || tries != 1 {
				t.Errorf("%v was tried %d times: %v", final, tries, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		if err := c.persist(ctx, func(func()) error { return gone }); !errors.Is(err, context.Canceled) && !errors.Is(err, gone) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func connect(t *testing.T, n *clitest.Node) *Client {
	t.Helper()
	return New(grpctest.Start(t, func(s *rpc.Server) { n.Register(grpc.ServiceRegistrar(s)) }))
}

func TestBlobsAreInlineUntilThereAreMany(t *testing.T) {
	t.Parallel()
	n := clitest.NewNode()
	b := &Blobs{Client: connect(t, n)}
	body := bytes.Repeat([]byte{7}, inlineLimit)
	inline := 0
	for range 12 {
		blob, err := b.Blob(t.Context(), bytes.NewReader(body), func(uint64) {})
		if err != nil || !bytes.Equal(n.Uploaded(blob), body) {
			t.Fatalf("%v", err)
		}
		inline += len(blob.GetInline())
	}
	if inline == 0 || inline > inlineBudget {
		t.Errorf("%d bytes travel inside the call", inline)
	}
	var last uint64
	blob, err := b.Blob(t.Context(), bytes.NewReader(append(body, 1)), func(sent uint64) { last = sent })
	if err != nil || blob.GetUploadId() == "" || last != inlineLimit+1 {
		t.Errorf("%v, %d bytes sent: %v", blob, last, err)
	}
}

func TestUploadThatBreaksOff(t *testing.T) {
	t.Parallel()
	n := clitest.NewNode()
	b := &Blobs{Client: connect(t, n)}
	body := bytes.Repeat([]byte("0123456789"), 1<<18)
	n.Break("Upload", 2)
	blob, err := b.Blob(t.Context(), bytes.NewReader(body), func(uint64) {})
	if err != nil || !bytes.Equal(n.Uploaded(blob), body) {
		t.Errorf("a file was not sent again: %v", err)
	}
	n.Break("Upload", 1)
	if _, err = b.Blob(t.Context(), io.MultiReader(bytes.NewReader(body)), func(uint64) {}); err == nil || !strings.Contains(err.Error(), "cannot be read again") {
		t.Errorf("a pipe: %v", err)
	}
	if n.Calls("Upload") != 4 {
		t.Errorf("%d uploads", n.Calls("Upload"))
	}
}

func TestWatchTellsEachChangeOnce(t *testing.T) {
	t.Parallel()
	n := clitest.NewNode()
	c := connect(t, n)
	task, err := c.Submit(t.Context(), "r", &taskv1.TaskSpec{Type: "wasm", Payload: &taskv1.TaskSpec_Wasm{Wasm: &taskv1.WasmPayload{Module: &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: []byte("script\nhang\n")}}}}})
	if err != nil {
		t.Fatal(err)
	}
	n.Break("WatchTask", 3)
	var seen []uint64
	if err := c.Watch(t.Context(), task.GetId(), func(task *taskv1.Task) error {
		seen = append(seen, task.GetRevision())
		if task.GetState() == "RUNNING" {
			_, err := c.Cancel(t.Context(), task.GetId())
			return err
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(seen); i++ {
		if seen[i] <= seen[i-1] {
			t.Errorf("revisions %v", seen)
		}
	}
}

func TestWriteErrorsAreNotTriedAgain(t *testing.T) {
	t.Parallel()
	n := clitest.NewNode()
	n.Add(&taskv1.Task{Id: "x", State: "COMPLETED"}, "hello", "")
	r, w := io.Pipe()
	_ = r.Close()
	var werr *WriteError
	if err := connect(t, n).Result(t.Context(), "x", "", w, 0); !errors.As(err, &werr) || !errors.Is(err, io.ErrClosedPipe) || n.Calls("GetResult") != 1 {
		t.Errorf("%v after %d calls", err, n.Calls("GetResult"))
	}
}
