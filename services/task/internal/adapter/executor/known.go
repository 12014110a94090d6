package executor

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/app"
)

const (
	badMost = 1024
	badTime = 10 * time.Minute
)

// goodModules are those whose bytes were looked at already, by their hash.
type goodModules struct {
	mu sync.Mutex
	m  map[moduleKey]struct{}
}

const goodMost = 4096

func (g *goodModules) has(key moduleKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.m[key]
	return ok
}

func (g *goodModules) add(key moduleKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.m == nil || len(g.m) >= goodMost {
		g.m = make(map[moduleKey]struct{})
	}
	g.m[key] = struct{}{}
}

// badModules are those which did not compile, so that sending one again and again does not cost its compile time each
// time. They are forgotten after a while: a limit may have been hit because the machine was busy.
type badModules struct {
	mu sync.Mutex
	m  map[moduleKey]badModule
}

type badModule struct {
	message string
	until   time.Time
}

func (b *badModules) get(key moduleKey) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.m[key]
	if ok && time.Now().After(e.until) {
		delete(b.m, key)
		ok = false
	}
	return e.message, ok
}

func (b *badModules) put(key moduleKey, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.m == nil || len(b.m) >= badMost {
		b.m = make(map[moduleKey]badModule)
	}
	b.m[key] = badModule{message, time.Now().Add(badTime)}
}

// sameHash tells whether a module is the one that its hash names: what is compiled is kept under that.
func sameHash(part app.Part) (bool, error) {
	f, err := os.Open(part.Path)
	if err != nil {
		return false, fmt.Errorf("cannot open the module: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, fmt.Errorf("cannot read the module: %w", err)
	}
	return [sha256.Size]byte(h.Sum(nil)) == part.SHA256, nil
}
