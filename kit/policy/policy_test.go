package policy_test

import (
	"testing"

	"github.com/shallot-net/shallot/kit/policy"
)

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		process, caller, method string
		want                    bool
	}{
		{"node", "cli", "/shallot.node.v1.NodeService/SubmitTask", true},
		{"node", "task", "/shallot.node.v1.NodeService/SubmitTask", false},
		{"task", "gateway", "/shallot.task.v1.TaskService/Session", false},
		{"broker", "metric", "/shallot.broker.v1.EventService/Publish", true},
		{"broker", "metric", "/shallot.broker.v1.NetworkService/Self", false},
		{"task", "node", "/shallot.broker.v1.RepositoryService/Get", false}, // the right caller of another process
		{"task", "node", "/grpc.health.v1.Health/Check", true},
		{"task", "task", "/grpc.health.v1.Health/Check", true},
		{"task", "task", "/shallot.task.v1.TaskService/GetTask", false},
		{"task", "cli", "/grpc.health.v1.Health/Watch", true},
		{"task", "", "/grpc.health.v1.Health/Check", false},
		{"task", "node", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", true},
		{"task", "cli", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", false},
		{"gateway", "gateway", "/grpc.health.v1.Health/Check", true},
		{"gateway", "node", "/shallot.telemetry.v1.TelemetryService/Gather", false},
		{"nobody", "node", "/shallot.task.v1.TaskService/GetTask", false},
		{"node", "cli", "shallot.node.v1.NodeService", false},
		{"node", "", "/shallot.node.v1.NodeService/GetNode", false},
	} {
		if got := policy.Allowed(c.process, c.caller, c.method); got != c.want {
			t.Errorf("%s at %s: %s is %v", c.caller, c.process, c.method, got)
		}
	}
}
