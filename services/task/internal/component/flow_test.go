package component_test

import (
	"slices"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app/provider"
)

func TestSumComesBack(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	p, c := n.addProvider(func(c *provider.Config) { c.Express = time.Minute }), n.addConsumer(nil) // however busy the machine is
	id := c.submit(sumSpec("1", "2", "3.5"), p)
	task := c.await(id)
	if task.GetState() != "COMPLETED" || task.GetExitCode() != 0 || task.GetProvider() != p.peer || task.GetAttempts() != 1 {
		t.Fatalf("the task is %v", task)
	}
	if got := c.result(id, ""); got != "6.5\n" {
		t.Fatalf("stdout is %q", got)
	}
	if want := []string{"CREATED", "SUBMITTED", "RESULT", "COMPLETED"}; !slices.Equal(happened(task), want) {
		t.Fatalf("history is %v, want %v", happened(task), want)
	}
	until(t, "the provider to let the result go", func() bool { return n.repo.pinned() == 0 })
}
