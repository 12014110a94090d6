// Command demo shows Shallot at work: it starts a small network on this machine, gives it two tasks from the command
// line, looks at one of them over REST, and says who did what. It leaves nothing running and no files.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/shallot-net/shallot/test/internal/dev"
)

const consumer = "consumer-1"

func main() {
	file := flag.String("picture", "", "also draw what is shown, as an SVG file")
	anonymous := flag.Bool("anonymous", false, "over a private Tor network on this machine; it needs the program tor")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *anonymous)
	if err == nil && *file != "" {
		err = os.WriteFile(*file, picture(shown.String()), 0o644) //nolint:gosec // a picture for everybody
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// shown is all that the demo has printed.
var shown strings.Builder

// out prints, and keeps a copy for the picture.
var out = io.MultiWriter(os.Stdout, &shown)

func run(ctx context.Context, anonymous bool) (err error) {
	bin, err := dev.Bin()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "shallot-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	input := filepath.Join(dir, "onion.txt")
	if err := os.WriteFile(input, []byte(strings.Repeat("a shallot is an onion and an onion has layers and layers hide\n", 200)), 0o600); err != nil {
		return err
	}

	cfg := dev.Config{Bin: bin, Dir: filepath.Join(dir, "net"), Providers: 3, Consumers: 1}
	if anonymous {
		cfg.Args, cfg.Timeout = []string{"--anonymous"}, torTimeout
		cfg.Log = func(line string) { // a Tor network takes half a minute
			if strings.Contains(line, "Tor") || strings.Contains(line, "fence") || strings.Contains(line, "still waiting") {
				fmt.Fprintln(os.Stderr, line)
			}
		}
	}
	say("$ shallot dev %s", strings.Join(append(cfg.Args, "--providers 3 --consumers 1"), " "))
	net, err := dev.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, net.Stop())
		left, lerr := net.Leftovers()
		if len(left) > 0 {
			err = errors.Join(err, fmt.Errorf("still running: %v", left))
		}
		if err = errors.Join(err, lerr); err == nil {
			say("\nStopped; nothing is left running.")
		}
	}()
	processes := 0
	for _, node := range net.Nodes() {
		p, err := net.Processes(node)
		if err != nil {
			return err
		}
		processes += len(p)
	}
	say("ready after %.1f s: %d nodes, %d processes", net.ReadyAfter.Seconds(), len(net.Nodes()), processes)

	var tasks []string
	for _, c := range []struct {
		shown string
		args  []string
	}{
		{"shallot run sum 0.1 0.2 1e30", []string{"run", "sum", "0.1", "0.2", "1e30"}},
		{"shallot run wasm wordcount.wasm --input onion.txt -- /in/onion.txt", []string{"run", "wasm", filepath.Join(bin, "examples", "wordcount.wasm"), "--input", input, "--", "/in/onion.txt"}},
	} {
		say("\n$ %s", c.shown)
		begin := time.Now()
		stdout, talk, code, err := net.CLI(ctx, consumer, nil, c.args...)
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d: %s", code, bytes.TrimSpace(talk))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.shown, err)
		}
		fmt.Fprint(out, string(stdout))
		say("(%d ms, command included)", time.Since(begin).Milliseconds())
	}

	if anonymous {
		if err := leak(ctx, net); err != nil {
			return err
		}
	}
	list, err := rest(ctx, net, "/v1/tasks")
	if err != nil {
		return err
	}
	var page struct {
		Tasks []struct{ ID string } `json:"tasks"`
	}
	if err := json.Unmarshal(list, &page); err != nil || len(page.Tasks) == 0 {
		return fmt.Errorf("/v1/tasks answered %.200q: %w", list, err)
	}
	for _, t := range page.Tasks {
		tasks = append(tasks, t.ID)
	}
	say("\n$ curl -H \"Authorization: Bearer $(cat $TOKEN_FILE)\" $GATEWAY/v1/tasks/%s", tasks[0])
	one, err := rest(ctx, net, "/v1/tasks/"+tasks[0])
	if err != nil {
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, one, "", "  "); err != nil {
		return err
	}
	lines := strings.Split(pretty.String(), "\n")
	if len(lines) > 16 {
		lines = append(lines[:16], "  …")
	}
	fmt.Fprintln(out, strings.Join(lines, "\n"))
	return who(ctx, net, tasks)
}

// torTimeout bounds the start of a network over Tor, on a busy machine.
const torTimeout = 10 * time.Minute

// leak has the consumer watched while it works.
func leak(ctx context.Context, net *dev.Network) error {
	say("\n$ shallot doctor --leak --for 3s")
	stdout, talk, code, err := net.CLI(ctx, consumer, nil, "doctor", "--leak", "--for", "3s")
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s%s", code, stdout, talk)
	}
	fmt.Fprint(out, string(stdout))
	return err
}

// who prints which peer did which step of each task.
func who(ctx context.Context, net *dev.Network, tasks []string) error {
	names := map[string]string{}
	for _, node := range net.Nodes() {
		stdout, _, _, err := net.CLI(ctx, node, nil, "node", "--output", "json")
		if err != nil {
			return err
		}
		var n struct {
			PeerID string `json:"peer_id"`
		}
		if err := json.Unmarshal(stdout, &n); err != nil {
			return err
		}
		if n.PeerID != "" {
			names[n.PeerID] = node
		}
	}
	say("\nWho did what")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TASK\tTYPE\tSTATE\tPROVIDER\tATTEMPTS\tSTEPS")
	for i := len(tasks) - 1; i >= 0; i-- {
		raw, err := rest(ctx, net, "/v1/tasks/"+tasks[i])
		if err != nil {
			return err
		}
		var t struct {
			Type, State, Provider string
			Attempts              int
			History               []struct{ What string }
		}
		if err := json.Unmarshal(raw, &t); err != nil {
			return err
		}
		var steps []string
		for _, h := range t.History {
			steps = append(steps, strings.ToLower(h.What))
		}
		provider := names[t.Provider]
		if provider == "" {
			provider = t.Provider
		}
		fmt.Fprintf(w, "%.8s\t%s\t%s\t%s\t%d\t%s\n", tasks[i], t.Type, t.State, provider, t.Attempts, strings.Join(steps, " → "))
	}
	return w.Flush()
}

// rest asks the consumer's gateway, with the token that `shallot node` names.
func rest(ctx context.Context, net *dev.Network, path string) ([]byte, error) {
	stdout, talk, code, err := net.CLI(ctx, consumer, nil, "node", "--output", "json")
	if err != nil || code != 0 {
		return nil, fmt.Errorf("shallot node: exit code %d: %s: %w", code, talk, err)
	}
	var n struct {
		GatewayURL string `json:"gateway_url"`
		TokenFile  string `json:"token_file"`
	}
	if err := json.Unmarshal(stdout, &n); err != nil {
		return nil, err
	}
	token, err := os.ReadFile(n.TokenFile)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.GatewayURL+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	return body, err
}

func say(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
