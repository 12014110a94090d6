package compose

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/test/internal/deployment"
	"github.com/shallot-net/shallot/test/internal/dev"
	"github.com/shallot-net/shallot/test/internal/page"
)

// TestOperations runs docs/operations.md from the first command to the last, in a copy of the sources, as an operator who has just got them.
func TestOperations(t *testing.T) {
	if blocks := runPage(t, "../../docs/operations.md", "operations"); blocks < 10 {
		t.Errorf("the page has %d blocks of commands", blocks)
	}
}

// TestScaleANode runs the how-to of the same name.
func TestScaleANode(t *testing.T) {
	runPage(t, "../../docs/how-to/scale-a-node.md", "scale-page")
}

// runPage runs a page about containers, which has to remove all that it makes.
func runPage(t *testing.T, path, name string) int {
	t.Helper()
	needEngine(t)
	blocks, err := page.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	bin, err := dev.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir, project := t.TempDir(), "shallot-test-"+name
	if err := page.Sources("../..", dir); err != nil {
		t.Fatal(err)
	}
	if err := page.Built(bin, dir); err != nil {
		t.Fatal(err)
	}
	env := append(deployment.Environment(), "COMPOSE_PROJECT_NAME="+project, "HOME="+t.TempDir())
	s := page.New(t, page.Config{Dir: dir, Env: env, Wait: 10 * time.Minute, Rewrite: func(commands string) string {
		// The one port on this page that a node of the machine's owner may have.
		return strings.ReplaceAll(commands, "/tcp/4001", "/tcp/"+deployment.SwarmPort)
	}})
	run := func(within time.Duration, commands string) (string, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
		cmd.Dir, cmd.Env = dir, append(env, "COMPOSE_FILE=deploy/docker-compose.yml:deploy/private.yml", "SHALLOT_NETWORK_KEY=./network.key")
		if _, err := os.Stat(filepath.Join(dir, "deploy", "network.key")); err != nil {
			cmd.Env = append(cmd.Env, "COMPOSE_FILE=deploy/docker-compose.yml")
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.WaitDelay = 5 * time.Second
		err := cmd.Run()
		return out.String(), err
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := run(time.Minute, "docker compose ps -a; docker compose logs --no-color --tail 20")
			t.Log(deployment.Tail(out, 20000))
		}
		if out, err := run(2*time.Minute, "docker compose --profile consumer --profile cli down --volumes --remove-orphans"); err != nil {
			t.Errorf("%v, %s", err, out)
		}
	})
	s.Run(t, blocks)
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
	out, err := run(time.Minute, "docker ps -aq --filter label=com.docker.compose.project="+project+"; docker volume ls -q --filter label=com.docker.compose.project="+project)
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("after the last command there are left: %q, %v", out, err)
	}
	return len(blocks)
}
