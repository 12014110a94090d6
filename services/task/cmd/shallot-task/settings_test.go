package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/kit/config"
	"github.com/shallot-net/shallot/services/task/internal/adapter/broker"
)

func load(t *testing.T, args ...string) (*settings, error) {
	t.Helper()
	s := newSettings()
	_, err := config.Load(process, s, append([]string{"--home", filepath.Join(t.TempDir(), "h")}, args...), config.WithEnviron(nil))
	return s, err
}

func TestDefaultsAreValid(t *testing.T) {
	for _, role := range []string{"provider", "consumer"} {
		s, err := load(t, "--role", role, "--provider.max_memory", "64MiB", "--consumer.lease", "90s")
		if err != nil {
			t.Fatal(err)
		}
		if p := s.policy(); p.Replicas != 4<<30 || p.ReplicasPerPeer != 1<<30 {
			t.Errorf("replicas may have %d and %d bytes", p.Replicas, p.ReplicasPerPeer)
		}
		if s.Provider.Replicas = 0; s.policy().Replicas >= 0 { // none, and not the default
			t.Errorf("no room for replicas is %d", s.policy().Replicas)
		}
		if got := s.policy().Limits.Max.Memory; got != 64<<20 {
			t.Errorf("max_memory is %d", got)
		}
		if s.consumer().Lease.String() != "1m30s" || s.Role != role {
			t.Errorf("loaded %+v", s)
		}
	}
}

func TestModes(t *testing.T) {
	for mode, anonymous := range map[string]bool{modeOpen: false, modeAnonymous: true} {
		s, err := load(t, "--mode", mode)
		if err != nil {
			t.Fatal(err)
		}
		if c := s.consumer(); c.Anonymous != anonymous || c.Redirect == anonymous || s.anonymous() != anonymous || (s.stall() > broker.Stall) != anonymous {
			t.Errorf("%s: %+v", mode, c)
		}
	}
	for mode, lease := range map[string]time.Duration{modeOpen: openLease, modeAnonymous: anonymousLease} {
		s, err := load(t, "--mode", mode)
		if err != nil || s.consumer().Lease != lease {
			t.Errorf("%s: a lease of %v, %v", mode, s.consumer().Lease, err)
		}
		if s, err = load(t, "--mode", mode, "--consumer.lease", "15s"); err != nil || s.consumer().Lease != 15*time.Second { // what is said holds
			t.Errorf("%s: a lease of %v in place of 15s, %v", mode, s.consumer().Lease, err)
		}
	}
	if s, err := load(t); err != nil || s.anonymous() {
		t.Errorf("open is not the default: %v", err)
	}
}

// TestPrice: strangers pay in anonymous mode, and elsewhere where the operator says so.
func TestPrice(t *testing.T) {
	for _, c := range []struct {
		mode, puzzle string
		on           bool
	}{{modeOpen, "auto", false}, {modeOpen, "on", true}, {modeAnonymous, "auto", true}, {modeAnonymous, "off", false}} {
		s, err := load(t, "--mode", c.mode, "--provider.puzzle.mode", c.puzzle, "--provider.puzzle.min", "16", "--provider.puzzle.free", "allowed", "--consumer.max_effort", "64")
		if err != nil {
			t.Fatal(err)
		}
		p := s.price()
		if on := p.Work != nil; on != c.on || on && (p.Rules.Min != 16 || p.Rules.Max != 1<<14 || !p.FreeAllowed) {
			t.Errorf("%s, %s: %+v", c.mode, c.puzzle, p)
		}
		if k := s.consumer(); k.Puzzle == nil || k.MaxEffort != 64 {
			t.Errorf("a consumer pays %d", k.MaxEffort)
		}
	}
}

func TestBadSettingsAreNamed(t *testing.T) {
	for want, args := range map[string][]string{
		`did you mean "provider"`:    {"--role", "provide"},
		`did you mean "two-choices"`: {"--provider.evaluator", "two-choice"},
		`did you mean "anonymous"`:   {"--mode", "anonymus"},
		"not a peer id":              {"--provider.allow", "nobody!"},
		"not above 0":                {"--consumer.lease", "-1s"},
		"make it 8s at least":        {"--consumer.lease", "7s"},
		"too small":                  {"--provider.queue", "0"},
		"not TYPE=ADDRESS":           {"--provider.executors", "ocr"},
		"a letter first":             {"--provider.executors", "OCR=unix:/run/ocr.sock"},
		"another name":               {"--provider.executors", "wasm=unix:/run/ocr.sock"},
		`did you mean "auto"`:        {"--provider.puzzle.mode", "autp"},
		"a power of two":             {"--provider.puzzle.min", "6"},
		"less than":                  {"--provider.puzzle.min", "64", "--provider.puzzle.max", "32"},
		"the word allowed":           {"--provider.puzzle.free", "everybody!"},
		"max_effort is 0":            {"--consumer.max_effort", "0"},
		"max_effort is 3":            {"--consumer.max_effort", "3"},
		"such as postgres://":        {"--store", "mysql://db/x"},
		"a file of its own":          {"--store", "postgres://u:p@/x?host=/run"},
		"store_password_file is for": {"--store_password_file", "/run/secrets/pg"},
		"sslmode=verify-full":        {"--store", "postgres://u@db:5432/x"},
		"already":                    {"--provider.executors", "ocr=unix:/run/a.sock,ocr=unix:/run/b.sock"},
	} {
		if _, err := load(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}
