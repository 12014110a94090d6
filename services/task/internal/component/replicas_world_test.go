package component_test

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/pgtest"
	"github.com/shallot-net/shallot/services/task/internal/adapter/postgres"
	"github.com/shallot-net/shallot/services/task/internal/app/provider"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// database is one that the replicas of a provider share.
type database struct {
	server *pgtest.Server
	name   string
}

const testLease = 3 * time.Second // longer than a busy machine keeps a test waiting: who is late is superseded

func (d *database) open(ctx context.Context, nd *node, log *slog.Logger) taskStore {
	url := d.server.URL(d.name)
	if nd.proxy != nil {
		url = strings.Replace(url, d.server.Dir, nd.proxy.Dir, 1)
	}
	s := must[*postgres.Store](nd.t)(postgres.Open(ctx, url, d.server.PasswordFile, log))
	if d, ok := nd.pconf.Fleet.(*deaf); ok {
		d.Fleet = s.Fleet(nd.dir)
	} else {
		nd.pconf.Fleet = s.Fleet(nd.dir)
	}
	if nd.pconf.Lease == 0 {
		nd.pconf.Lease = testLease
	}
	return s
}

// deaf is a fleet whose replica hears nothing of the others but what it asks for.
type deaf struct{ provider.Fleet }

func (*deaf) Listen(ctx context.Context, _ func(provider.Note)) error {
	<-ctx.Done()
	return nil
}

// addReplicas starts a provider of several replicas on one database. The first leads, and may have its store through a proxy.
func (n *network) addReplicas(count int, change func(i int, c *provider.Config), first ...*pgtest.Proxy) []*node {
	n.t.Helper()
	server := pgtest.Shared(n.t)
	db := &database{server, server.Database(n.t)}
	one := n.addNode("provider")
	for _, p := range first {
		one.proxy = p
	}
	all := []*node{one}
	for range count - 1 {
		all = append(all, &node{t: n.t, net: n, peer: one.peer, key: one.key, dir: n.t.TempDir(), role: "provider", hand: true, tasks: one.tasks, news: make(chan struct{}, 1)})
	}
	for i, nd := range all {
		nd.database = db
		nd.pconf.Evaluator = domain.Local{}
		change(i, &nd.pconf)
		nd.start()
	}
	return all
}

// crash ends a replica so that it can say nothing to the others.
func (nd *node) crash() {
	nd.store.Close()
	nd.stop()
}

// takeOver waits until a replica leads, and connects the node to it.
func (nd *node) takeOver() {
	nd.t.Helper()
	end := time.After(time.Minute)
	for !nd.provider.Leading() {
		news, stop := nd.provider.WatchQueue()
		select {
		case <-news:
		case <-end:
			nd.t.Fatal("it does not lead")
		}
		stop()
	}
	nd.net.mu.Lock()
	nd.net.nodes[nd.peer] = nd
	nd.net.mu.Unlock()
	nd.connect()
}

// idle waits until a replica runs nothing: its consumer calls a task cancelled before its program has been stopped.
func (nd *node) idle() {
	nd.t.Helper()
	news, stop := nd.provider.WatchQueue()
	defer stop()
	end := time.After(time.Minute)
	for nd.provider.Queue().Running > 0 {
		select {
		case <-news:
		case <-end:
			nd.t.Fatal("it still runs something")
		}
	}
}
