package faults_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// holding is what a process has open.
type holding struct{ goroutines, files int }

// inventory is what every process has open, by node and name.
func (w *world) inventory() map[string]holding {
	out := map[string]holding{}
	for _, node := range w.network().Nodes() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		all, err := w.network().Telemetry(ctx, node)
		cancel()
		if err != nil {
			w.t.Errorf("telemetry of %s: %v", node, err)
			continue
		}
		for _, p := range all {
			open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.GetPid()))
			out[node+"/"+p.GetProcess()] = holding{goroutines: gauge(p.GetText(), "go_goroutines"), files: len(open)}
		}
	}
	return out
}

func gauge(text []byte, name string) int {
	for line := range bytes.Lines(text) {
		if v, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			n, _ := strconv.ParseFloat(string(bytes.TrimSpace(v)), 64)
			return int(n)
		}
	}
	return 0
}

// slack is by how much a process that has worked may have more open than a fresh one: caches of connections, pools of workers.
var slack = holding{goroutines: 60, files: 25}

// nothingLeft waits until the network holds what a fresh one holds.
func (w *world) nothingLeft(fresh map[string]holding, tasks int) {
	most := tasks/10 + 10
	var left []string
	timed := 0
	clean := eventually(90*time.Second, func() bool {
		left, timed = left[:0], 0
		for name, now := range w.inventory() {
			was := fresh[name]
			if now.goroutines > was.goroutines+slack.goroutines || now.files > was.files+slack.files {
				left = append(left, fmt.Sprintf("%s has %d goroutines and %d files open, fresh it had %d and %d", name, now.goroutines, now.files, was.goroutines, was.files))
			}
		}
		for _, node := range w.network().Nodes() {
			n, forever := w.pins(node)
			timed += n
			left = append(left, forever...)
			left = append(left, w.temporary(node)...)
			left = append(left, w.working(node)...)
		}
		if timed > most {
			left = append(left, fmt.Sprintf("%d results that nobody wants any more are pinned until their time is over, of %d tasks", timed, tasks))
		}
		return len(left) == 0
	})
	w.t.Logf("%d results are pinned until their time is over", timed)
	if !clean {
		w.t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// pins are those of tasks, which are all over. What a process was about to let go when it was killed is kept until its time is over: those
// are counted apart.
func (w *world) pins(node string) (timed int, left []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	h, err := home.Open(filepath.Join(w.dir, node))
	if err != nil {
		return 0, []string{err.Error()}
	}
	conn, err := rpc.Dial(h.Endpoint("broker"), rpc.ClientConfig{})
	if err != nil {
		return 0, []string{err.Error()}
	}
	defer conn.Close()
	r, err := brokerv1.NewRepositoryServiceClient(conn).ListPins(ctx, &brokerv1.ListPinsRequest{PageSize: 1000})
	if err != nil {
		return 0, []string{fmt.Sprintf("the pins of %s: %v", node, err)}
	}
	for _, p := range r.GetPins() {
		if !strings.HasPrefix(p.GetOwner(), "task:") && !strings.HasPrefix(p.GetOwner(), "payload:") {
			continue
		}
		if p.GetExpiresAt() != nil && time.Until(p.GetExpiresAt().AsTime()) < 49*time.Hour {
			timed++
			continue
		}
		left = append(left, fmt.Sprintf("%s keeps %s for %s", node, p.GetCid(), p.GetOwner()))
	}
	return timed, left
}

// working are tasks, or at a provider attempts, that go on.
func (w *world) working(node string) (left []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := w.client(node).ListTasks(ctx, &nodev1.ListTasksRequest{States: []string{"PENDING", "SUBMITTED", "ACCEPTED", "RUNNING"}, PageSize: 100})
	if err != nil {
		return []string{fmt.Sprintf("the tasks of %s: %v", node, err)}
	}
	for _, t := range r.GetTasks() {
		left = append(left, fmt.Sprintf("task %s is %s at %s", t.GetId(), t.GetState(), node))
	}
	return left
}

// temporary are files that nobody needs once all tasks are over.
func (w *world) temporary(node string) (left []string) {
	for _, dir := range []string{"state/task/work", "state/task/uploads", "state/task/jobs"} {
		_ = filepath.WalkDir(filepath.Join(w.dir, node, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				left = append(left, "temporary file "+path)
			}
			return nil
		})
	}
	return left
}

// noSecrets looks into the stores of a network that is stopped: what was kept for a task while it went on is gone with its end.
func (w *world) noSecrets() {
	for _, node := range w.network().Nodes() {
		path := filepath.Join(w.dir, node, "state", "task", "task.db")
		db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
		if err != nil {
			w.t.Errorf("%s: %v", path, err)
			continue
		}
		for what, query := range map[string]string{
			"tasks with keys":           "SELECT count(*) FROM tasks WHERE finished_at > 0 AND secret IS NOT NULL",
			"tasks with payloads":       "SELECT count(*) FROM tasks WHERE finished_at > 0 AND payload IS NOT NULL",
			"attempts that go on":       "SELECT count(*) FROM entries WHERE ended_at = 0",
			"attempts with sealed keys": "SELECT count(*) FROM entries WHERE ended_at > 0 AND (sealed_key IS NOT NULL OR ciphertext IS NOT NULL)",
		} {
			var n int
			if err := db.QueryRow(query).Scan(&n); err != nil || n > 0 {
				w.t.Errorf("%s: %d %s, %v", node, n, what, err)
			}
		}
		db.Close()
	}
}
