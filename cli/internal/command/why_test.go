package command

import (
	"strings"
	"testing"
	"time"

	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	telemetryv1 "github.com/shallot-net/shallot/proto/shallot/telemetry/v1"
)

const failedID = "3f2a9e00000000000000000000000004"

// fail gives the node a task that two providers did not run, and why.
func (w *world) fail() {
	w.node.Now = func() time.Time { return noon }
	w.node.Add(&taskv1.Task{Id: failedID, Type: "wasm", State: "FAILED", Attempts: 2, CreatedAt: ago(9 * time.Second), Revision: 9,
		Error: &taskv1.TaskError{Reason: "TIME_LIMIT", Message: "the program ran for longer than 2s \x1b[2J"},
		History: []*taskv1.HistoryEntry{
			{At: ago(8 * time.Second), Attempt: 1, State: "PENDING", What: "REFUSED", PeerId: peerB, Detail: "QUEUE_FULL: this provider's queue is full"},
			{At: ago(5 * time.Second), Attempt: 2, State: "RUNNING", What: "STARTED", PeerId: peerA},
		}}, "", "")
	w.node.Placement = map[string][]*taskv1.PlacementAttempt{failedID: {
		{Attempt: 1, PeerId: peerB, At: ago(9 * time.Second), ChosenBecause: "LESS_BUSY", Known: 3, Qualified: 2, Ended: "REFUSED", Considered: []*taskv1.Considered{
			{PeerId: peerB, Score: 0.25, Verdict: "CHOSEN", Reason: "0.25 tasks per slot"}, {PeerId: peerA, Score: 1.5, Verdict: "BUSIER", Reason: "1.5 tasks per slot"},
			{PeerId: "12D3KooWThird", Verdict: "WRONG_TYPE", Reason: "does not execute wasm"}}},
		{Attempt: 2, PeerId: peerB, Provider: peerA, At: ago(6 * time.Second), ChosenBecause: "NEW_WAY", Ended: "RESULT"},
	}}
}

func TestTaskWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.furnish()
	w.fail()
	r := w.run("task", "why", "3f2a9e")
	r.want(t, 0, r.stdout, "")
	golden(t, "task-why.txt", r.stdout)
	if strings.ContainsRune(r.stdout, '\x1b') {
		t.Error("what a provider said reaches the terminal as it is")
	}
	v := w.run("task", "why", "3f2a9e", "--output", "json").json(t)
	if v["state"] != "FAILED" || !strings.Contains(v["mends"].(string), "--timeout") || v["error"].(map[string]any)["reason"] != "TIME_LIMIT" {
		t.Errorf("it says %v", v)
	}
	first := v["attempts"].([]any)[0].(map[string]any)
	if first["chosen_because"] != "LESS_BUSY" || first["because"] != "of two that were drawn, the less busy (3 known, 2 qualify)" || !strings.HasPrefix(first["ended_detail"].(string), "QUEUE_FULL") ||
		first["considered"].([]any)[2].(map[string]any)["verdict"] != "WRONG_TYPE" {
		t.Errorf("of the first attempt it says %v", first)
	}
}

func TestTaskWhyOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.furnish()
	w.node.Add(&taskv1.Task{Id: "bbbb0000000000000000000000000005", Type: "licence", State: "FAILED", Error: &taskv1.TaskError{Reason: "LICENCE_EXPIRED", Message: "renew it"}, Revision: 3}, "", "")
	for want, id := range map[string]string{
		"its stderr: `shallot task logs 3f2a9c000000`": "3f2a9c", // it ended with exit code 3
		"a reason of the executor's own":               "bbbb",
		"state: RUNNING":                               "aaaa",
	} {
		r := w.run("task", "why", id)
		if r.code != 0 || !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), want) || !strings.Contains(r.stderr, "no provider was looked for yet") {
			t.Errorf("%s: exit code %d, %q is not in\n%s%s", id, r.code, want, r.stdout, r.stderr)
		}
	}
	if r := w.run("task", "why", "ffff"); r.code == 0 || !strings.Contains(r.stderr, "there is no task") {
		t.Errorf("of no task it says %+v", r)
	}
}

func (w *world) configure() {
	w.node.Settings = []*telemetryv1.ProcessSettings{
		{Name: "task", Pid: 7, Version: "dev", Replica: "host-1", Settings: []*telemetryv1.Setting{
			{Name: "provider.slots", Value: "4", Origin: "flag", Place: "--provider.slots", Help: "tasks at a time"},
			{Name: "store.password", Origin: "environment", Place: "SHALLOT_TASK_STORE_PASSWORD", Secret: true}, {Name: "consumer.keep", Value: "24h0m0s", Origin: "default"}}},
		{Name: "task", Pid: 8, Replica: "host-2", Error: "it does not answer"},
		{Name: "node", Pid: 9, Version: "dev", Replica: "host-1", Settings: []*telemetryv1.Setting{{Name: "listen", Value: "unix:/run/node.sock", Origin: "file", Place: "/etc/node.yaml"}}},
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure()
	r := w.run("settings")
	r.want(t, 0, r.stdout, r.stderr)
	golden(t, "settings.txt", r.stdout)
	if !strings.Contains(r.stderr, "task host-2 does not say its settings: it does not answer") {
		t.Errorf("of a replica that does not answer it says %q", r.stderr)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"task.provider"}, []string{"provider.slots"}},
		{[]string{"node"}, []string{"listen"}},
		{[]string{"--set", "task"}, []string{"provider.slots", "store.password"}},
	} {
		v := w.run(append([]string{"settings", "--output", "json"}, c.args...)...).json(t)
		var names []string
		for _, p := range v["processes"].([]any) {
			list, _ := p.(map[string]any)["settings"].([]any)
			for _, s := range list {
				names = append(names, s.(map[string]any)["name"].(string))
			}
		}
		if strings.Join(names, " ") != strings.Join(c.want, " ") {
			t.Errorf("%v: %v", c.args, names)
		}
	}
	if r := w.run("settings", "provider.slot5"); r.code == 0 || !strings.Contains(r.stderr, `did you mean "provider.slots"`) {
		t.Errorf("a setting that is not there: %+v", r)
	}
}
