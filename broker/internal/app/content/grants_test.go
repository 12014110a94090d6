package content_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/app/content/contenttest"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// grantWorld has DAGs written as lists: the links of "name" are in the block "name".
type grantWorld struct {
	t      *testing.T
	store  *contenttest.Memory
	grants *app.Grants
	now    time.Time
	mu     sync.Mutex
	read   int // inner nodes
}

func newGrantWorld(t *testing.T, most int) *grantWorld {
	w := &grantWorld{t: t, store: contenttest.NewMemory(), now: time.Unix(1000, 0)}
	w.restart(most)
	return w
}

func (w *grantWorld) restart(most int) {
	w.t.Helper()
	w.grants = app.NewGrants(app.GrantsConfig{Store: w.store, Links: w.links, Now: func() time.Time { return w.now }, Log: slog.New(slog.DiscardHandler), MaxEntries: most})
	if err := w.grants.Load(); err != nil {
		w.t.Fatal(err)
	}
}

func nodeKey(name string) string { return contenttest.Key([]byte(name)) }

// links: "+a b +c" has the inner nodes "+…" of its words, written with dots for spaces, and leaves.
func (w *grantWorld) links(name string, read func(string) ([]byte, error)) (app.Node, error) {
	n := app.Node{Key: nodeKey(name)}
	if !strings.HasPrefix(name, "+") {
		return n, nil
	}
	w.mu.Lock()
	w.read++
	w.mu.Unlock()
	if _, err := read(n.Key); err != nil {
		return n, err
	}
	for _, word := range strings.Fields(name[1:]) {
		word = strings.ReplaceAll(word, ".", " ")
		if strings.HasPrefix(word, "+") {
			n.Inner = append(n.Inner, word)
		} else {
			n.Leaves = append(n.Leaves, nodeKey(word))
		}
	}
	return n, nil
}

func (w *grantWorld) pin(p content.Pin, nodes ...string) {
	w.t.Helper()
	c := app.Change{Pins: []content.Pin{p}}
	for _, n := range nodes {
		c.Blocks = append(c.Blocks, contenttest.Block([]byte(n)))
	}
	if err := w.store.Commit(c); err != nil {
		w.t.Fatal(err)
	}
	w.grants.Changed(p)
}

func (w *grantWorld) unpin(p content.Pin) {
	w.t.Helper()
	if err := w.store.Commit(app.Change{Unpins: []content.Pin{{CID: p.CID, Owner: p.Owner}}}); err != nil {
		w.t.Fatal(err)
	}
	w.grants.Changed(p)
}

func (w *grantWorld) expect(persona, peer string, want bool, names ...string) {
	w.t.Helper()
	for _, n := range names {
		if got := w.grants.Allowed(persona, peer, nodeKey(n)); got != want {
			w.t.Errorf("%s of %q may have %q: %v", peer, persona, n, got)
		}
	}
}

const tree, branch = "+a +b.c", "+b c"

func TestGrants(t *testing.T) {
	w := newGrantWorld(t, 0)
	p := content.Pin{CID: tree, Owner: "o", Persona: "p", Readers: []string{"x", "y", "x"}}
	w.pin(p, tree, branch)
	for range 2 {
		w.expect("p", "x", true, tree, "a", branch, "b", "c")
		w.expect("p", "y", true, "c")
		w.expect("p", "z", false, tree, "a", "c")
		w.expect("", "x", false, tree, "a", "c")
		w.expect("p", "x", false, "d", "")
	}
	if w.read != 2 {
		t.Errorf("%d nodes were read, and 2 have links", w.read)
	}
	w.restart(0)
	w.expect("p", "y", true, "a", "b")
	w.expect("p", "z", false, "a", "b")
	other := content.Pin{CID: branch, Owner: "o", Persona: "p", Readers: []string{"y", "z"}}
	w.pin(other)
	w.expect("p", "z", true, "b", "c", branch)
	w.expect("p", "z", false, "a", tree)
	w.unpin(p)
	w.expect("p", "x", false, tree, "a", "b")
	w.expect("p", "y", true, "b", "c")
	w.expect("p", "y", false, "a")
	w.unpin(other)
	w.unpin(other)
	w.expect("p", "y", false, "b")
	w.expect("p", "z", false, "b")
}

func TestGrantsEnd(t *testing.T) {
	w := newGrantWorld(t, 0)
	p := content.Pin{CID: "leaf", Owner: "o", Readers: []string{"x"}, ExpiresAt: w.now.Add(time.Minute)}
	w.pin(p, "leaf")
	w.expect("", "x", true, "leaf")
	p.ExpiresAt = w.now.Add(time.Hour)
	w.pin(p) // renewed
	w.now = w.now.Add(time.Minute)
	w.expect("", "x", true, "leaf")
	w.now = w.now.Add(time.Hour)
	w.expect("", "x", false, "leaf")
	w.restart(0)
	w.expect("", "x", false, "leaf")
	p.ExpiresAt = time.Time{}
	w.pin(p)
	w.expect("", "x", true, "leaf")
	p.Readers = nil // pinned again for nobody
	w.pin(p)
	w.expect("", "x", false, "leaf")
}

// What is missing is looked for again, but not each time that somebody asks.
func TestGrantsOfWhatIsMissing(t *testing.T) {
	w := newGrantWorld(t, 0)
	w.pin(content.Pin{CID: tree, Owner: "o", Readers: []string{"x"}}, tree)
	for range 5 {
		w.expect("", "x", true, "a", branch)
		w.expect("", "x", false, "b")
	}
	if w.read != 2 {
		t.Errorf("%d nodes were read", w.read)
	}
	if err := w.store.Commit(app.Change{Blocks: []app.Block{contenttest.Block([]byte(branch))}}); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Minute)
	w.expect("", "x", true, "a", branch, "b", "c")
}

// What does not fit into memory is found out again.
func TestGrantsAreBounded(t *testing.T) {
	w := newGrantWorld(t, 25)
	for i := range 20 {
		name := fmt.Sprintf("+l%d m%d n%d", i, i, i)
		w.pin(content.Pin{CID: name, Owner: "o", Readers: []string{fmt.Sprint("peer", i)}}, name)
	}
	for range 3 {
		for i := range 20 {
			w.expect("", fmt.Sprint("peer", i), true, fmt.Sprintf("l%d", i), fmt.Sprintf("n%d", i))
			w.expect("", fmt.Sprint("peer", i), false, fmt.Sprintf("l%d", i+1))
		}
	}
	if n := w.grants.Entries(); n > 25 {
		t.Errorf("%d entries are remembered of 25", n)
	}
	for i := range 20 { // one reader of more than fits
		name := fmt.Sprintf("+l%d m%d n%d", i, i, i)
		w.pin(content.Pin{CID: name, Owner: "o", Readers: []string{"greedy"}}, name)
	}
	for i := range 20 {
		w.expect("", "greedy", true, fmt.Sprintf("l%d", i), fmt.Sprintf("n%d", i))
	}
	w.expect("", "greedy", false, "nothing")
	w.expect("", "peer1", false, "l1")
}

func TestGrantsAreSafe(t *testing.T) {
	w := newGrantWorld(t, 12)
	p := content.Pin{CID: tree, Owner: "o", Readers: []string{"x", "y"}}
	w.pin(p, tree, branch)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 300 {
				switch q := (content.Pin{CID: tree, Owner: fmt.Sprint(j % 5), Readers: []string{"x"}}); i {
				case 0:
					w.pin(q)
				case 1:
					w.unpin(q)
				default:
					w.expect("", "y", true, "a", "c")
					w.grants.Allowed("", "x", nodeKey("b"))
				}
			}
		})
	}
	wg.Wait()
	for j := range 5 {
		w.unpin(content.Pin{CID: tree, Owner: fmt.Sprint(j)})
	}
	w.expect("", "x", true, "a", "b")
	w.unpin(p)
	w.expect("", "x", false, "a", "b")
	if n := w.grants.Entries(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// Who has a grant of a persona's is known without reading anything, and not for longer than it lasts.
func TestAnyGrant(t *testing.T) {
	t.Parallel()
	w := newGrantWorld(t, 0)
	w.pin(content.Pin{CID: "+a", Owner: "task:1", ExpiresAt: w.now.Add(time.Minute), Persona: "p", Readers: []string{"friend"}}, "+a", "a")
	for _, c := range []struct {
		persona, peer string
		want          bool
	}{{"p", "friend", true}, {"p", "stranger", false}, {"q", "friend", false}} {
		if got := w.grants.Any(c.persona, c.peer); got != c.want {
			t.Errorf("%s may have something of %s: %v", c.peer, c.persona, got)
		}
	}
	w.now = w.now.Add(time.Minute)
	if w.grants.Any("p", "friend") || w.read != 0 {
		t.Errorf("after its end it is granted, and %d nodes were read", w.read)
	}
}
