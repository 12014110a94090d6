package pgstore_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/pgstore"
	"github.com/shallot-net/shallot/kit/pgtest"
)

// A server that is away at the start is waited for, in words.
func TestAwayAtStart(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	c := config(s, s.Database(t))
	s.Stop(t)
	log := newEvents()
	c.Log = slog.New(slog.NewTextHandler(log, nil))
	opened := make(chan *pgstore.DB)
	go func() {
		db, err := pgstore.Open(t.Context(), c)
		if err != nil {
			t.Error(err)
		}
		opened <- db
	}()
	log.wait(t, "does not answer: see that it runs")
	s.Restart(t)
	db := <-opened
	if db == nil {
		return
	}
	defer db.Close()
	if err := db.Commit(t.Context(), insert(1, "")); err != nil {
		t.Fatal(err)
	}
	// And whoever is told to end meanwhile ends.
	s.Stop(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pgstore.Open(ctx, c); err == nil {
		t.Fatal("opened")
	}
}

// A server that goes and comes back: what was refused was not written, what was accepted is there, and what nobody waits for is written late.
func TestGoneAndBack(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	c := config(s, s.Database(t))
	log := newEvents()
	c.Log = slog.New(slog.NewTextHandler(log, nil))
	db := open(t, c)
	if err := db.Commit(t.Context(), insert(1, "")); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 1 {
		t.Fatal(n)
	}
	s.Stop(t)
	if err := db.Commit(t.Context(), insert(2, "")); reason(err) != pgstore.ReasonAway || !pgstore.Waits(err) {
		t.Fatalf("while it is away: %v", err)
	}
	db.Later(insert(3, ""))
	if err := db.Row(t.Context(), `SELECT 1`, nil); reason(err) != pgstore.ReasonAway {
		t.Fatalf("a look while it is away: %v", err)
	}
	log.wait(t, "cannot be written")
	s.Restart(t)
	if err := db.Commit(t.Context(), insert(4, "")); err != nil {
		t.Fatalf("when it is back: %v", err)
	}
	log.wait(t, "can be written again")
	if n := count(t, db); n != 3 {
		t.Fatalf("%d rows, want 1, 3 and 4", n)
	}
	s.Stop(t) // while nobody looks: the connections are of an earlier life, which is nobody's error
	s.Restart(t)
	if err := db.Commit(t.Context(), insert(5, "")); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 4 {
		t.Fatal(n)
	}
}

// The answer to a commit is lost: whether it counts is found out, and not guessed.
func TestLostCommit(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	p := s.NewProxy(t)
	c := config(s, s.Database(t))
	c.URL = strings.Replace(c.URL, s.Dir, p.Dir, 1)
	db := open(t, c)
	if err := db.Commit(t.Context(), insert(1, "")); err != nil {
		t.Fatal(err)
	}
	p.LoseAnswer("COMMIT")
	if err := db.Commit(t.Context(), insert(2, "")); err != nil {
		t.Fatalf("a commit whose answer was lost: %v", err)
	}
	if p.Losses() != 1 {
		t.Fatal("no answer was lost")
	}
	if err := db.Commit(t.Context(), insert(2, "")); !errors.Is(err, errThere) {
		t.Fatalf("it was said to be written: %v", err)
	}
	p.LoseAnswer("INSERT INTO a") // before the commit: nothing of it counts, and it is tried again
	if err := db.Commit(t.Context(), insert(3, "")); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 3 {
		t.Fatalf("%d rows", n)
	}
}

// A process that ends waits for a silent server as long as it wants to, and no longer.
func TestTheEndDoesNotWait(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	p := s.NewProxy(t)
	c := config(s, s.Database(t))
	c.URL = strings.Replace(c.URL, s.Dir, p.Dir, 1)
	db := open(t, c)
	if err := db.Commit(t.Context(), insert(1, "")); err != nil {
		t.Fatal(err)
	}
	p.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := db.CommitWithin(ctx, insert(2, "")); !errors.Is(err, fault.From(context.DeadlineExceeded)) {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > writeTimeout/2 {
		t.Fatalf("it took %v", took)
	}
	begin = time.Now()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed in %v", time.Since(begin))
}

// A process that is told to end while nobody knows whether a commit counts says so to whoever waits for it, and ends.
func TestTheEndDoesNotWaitForADoubt(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	p := s.NewProxy(t)
	name := s.Database(t)
	look := s.Connect(t, name)
	c := config(s, name)
	c.URL = strings.Replace(c.URL, s.Dir, p.Dir, 1)
	process, end := context.WithCancel(t.Context())
	defer end()
	db, err := pgstore.Open(process, c)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Commit(t.Context(), insert(1, "")); err != nil {
		t.Fatal(err)
	}
	p.PauseAfter("COMMIT")
	wrote := make(chan error, 1)
	go func() { wrote <- db.Commit(context.Background(), insert(2, "")) }()
	until(t, "the commit counts", func() bool {
		n := 0
		if err := look.QueryRow(t.Context(), "SELECT COUNT(*) FROM part.a").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 2
	})
	end()
	select {
	case err = <-wrote:
	case <-time.After(time.Minute):
		t.Fatal("whoever commits waits for the server when its process has ended")
	}
	if reason(err) != pgstore.ReasonUnknown || pgstore.Waits(err) {
		t.Errorf("of the commit it is said: %v", err)
	}
}

// Close does not wait for room in the queue of a writer that waits for a silent server.
func TestCloseWithAFullQueue(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	p := s.NewProxy(t)
	c := config(s, s.Database(t))
	c.URL = strings.Replace(c.URL, s.Dir, p.Dir, 1)
	db := open(t, c)
	if err := db.Commit(t.Context(), insert(0, "")); err != nil {
		t.Fatal(err)
	}
	p.Pause()
	const writes = 4 << 10 // more than the queue and a group have room for
	var wg sync.WaitGroup
	for i := range writes {
		wg.Go(func() {
			if err := db.Commit(context.Background(), insert(i+1, "")); err == nil {
				t.Error("a server that is silent has taken a write")
			}
		})
	}
	until(t, "the queue is full", db.Full)
	began, closed := time.Now(), make(chan error, 1)
	go func() {
		closed <- db.Close()
		wg.Wait()
		close(closed)
	}()
	for range 2 {
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a server that is silent is waited for")
		}
	}
	t.Logf("closed in %v", time.Since(began))
}

// The server crashes under two processes that write: what was said to be written is there, and what was said not to be is not, though numbers of transactions that were lost come again.
func TestCrashes(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	c := config(s, s.Database(t))
	both := []*pgstore.DB{open(t, c), open(t, c)}
	var mu sync.Mutex
	said := map[int]bool{}
	write := func(db *pgstore.DB) error {
		mu.Lock()
		id := len(said)
		said[id] = false
		mu.Unlock()
		err := db.Commit(context.Background(), insert(id, ""))
		if err != nil && !pgstore.Waits(err) {
			t.Errorf("a commit failed with %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		said[id] = err == nil
		return err
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = write(both[i%2]) // said has it
			}
		})
	}
	for range 4 {
		for _, db := range both {
			until(t, "it is written", func() bool { return write(db) == nil })
		}
		s.Stop(t)
		s.Restart(t)
	}
	for _, db := range both {
		until(t, "it is written again", func() bool { return write(db) == nil })
	}
	stop()
	wg.Wait()
	there := map[int]bool{}
	err := both[0].Each(t.Context(), `SELECT id FROM a`, nil, func() { clear(there) }, func(r pgx.Rows) error {
		id := 0
		err := r.Scan(&id)
		there[id] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, ok := range said {
		if ok != there[id] {
			t.Errorf("of row %d it was said that it is written: %v; it is there: %v", id, ok, there[id])
		}
	}
}

func TestReadOnlyServer(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	name := s.Database(t)
	s.Exec(t, `ALTER DATABASE `+name+` SET default_transaction_read_only = on`)
	c := config(s, name)
	log := newEvents()
	c.Log = slog.New(slog.NewTextHandler(log, nil))
	opened := make(chan *pgstore.DB)
	go func() {
		db, err := pgstore.Open(t.Context(), c)
		if err != nil {
			t.Error(err)
		}
		opened <- db
	}()
	log.wait(t, "takes no writes")
	s.Exec(t, `ALTER DATABASE `+name+` RESET default_transaction_read_only`)
	db := <-opened
	if db == nil {
		return
	}
	defer db.Close()
	if err := db.Commit(t.Context(), insert(1, "")); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, `ALTER SYSTEM SET default_transaction_read_only = on`, `SELECT pg_reload_conf()`)
	written := 1
	until(t, "writes are refused", func() bool {
		err := db.Commit(context.Background(), insert(written+1, ""))
		if err == nil {
			written++
		}
		return reason(err) == pgstore.ReasonReadOnly && pgstore.Waits(err)
	})
	s.Exec(t, `SET default_transaction_read_only = off`, `ALTER SYSTEM RESET default_transaction_read_only`, `SELECT pg_reload_conf()`)
	until(t, "writes are taken again", func() bool { return db.Commit(context.Background(), insert(1000, "")) == nil })
	if n := count(t, db); n != written+1 {
		t.Fatalf("%d rows, want %d", n, written+1)
	}
}

// until asks again and again: settings of a server reach its processes when they next look.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(end) {
			t.Fatalf("in a minute it was not so that %s", what)
		}
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	db := open(t, config(s, s.Database(t)))
	heard := make(chan string, 16)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- db.Listen(ctx, "news", func(text string) { heard <- text }) }()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Fatalf("heard %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%q was not heard", want)
		}
	}
	say := func(text string) {
		t.Helper()
		var b pgstore.Batch
		b.Exec(`SELECT pg_notify('news', $1)`, text)
		if err := db.Commit(context.Background(), &b); err != nil {
			t.Fatal(err)
		}
	}
	expect("")
	say("one")
	expect("one")
	s.Stop(t)
	s.Restart(t)
	expect("") // something may have been missed
	say("two")
	expect("two")
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestEachBeginsAnewWhenItBreaksOff(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	p := s.NewProxy(t)
	c := config(s, s.Database(t))
	c.URL = strings.Replace(c.URL, s.Dir, p.Dir, 1)
	db := open(t, c)
	for i := range 3 {
		if err := db.Commit(t.Context(), insert(i, "")); err != nil {
			t.Fatal(err)
		}
	}
	began := 0
	var got []int
	err := db.Each(t.Context(), `SELECT id FROM a ORDER BY id`, nil, func() { began, got = began+1, nil }, func(r pgx.Rows) error {
		var id int
		err := r.Scan(&id)
		got = append(got, id)
		return err
	})
	if err != nil || len(got) != 3 || began != 1 {
		t.Fatalf("%v, %d, %v", got, began, err)
	}
	p.Cut()
	if err := db.Each(t.Context(), `SELECT id FROM a ORDER BY id`, nil, func() { got = nil }, func(r pgx.Rows) error {
		var id int
		err := r.Scan(&id)
		got = append(got, id)
		return err
	}); err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
}

// A file system without room: writes are refused with words, nothing is lost, and it goes on when there is room.
func TestFull(t *testing.T) {
	t.Parallel()
	s := pgtest.Shared(t)
	name := s.Database(t)
	s.SmallDatabase(t, name, 16)
	db := open(t, config(s, name))
	if err := db.Commit(t.Context(), insert(1, "kept")); err != nil {
		t.Fatal(err)
	}
	do := func(statement string) error {
		var b pgstore.Batch
		b.Exec(statement)
		return db.Commit(context.Background(), &b)
	}
	err := do(`CREATE TABLE filler (v TEXT)`)
	written := 0
	for err == nil && written < 100 {
		if err = do(`INSERT INTO filler SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 16384)`); err == nil { // half a MiB that does not get smaller
			written++
		}
	}
	if reason(err) != pgstore.ReasonFull || !pgstore.Waits(err) || written < 3 {
		t.Fatalf("after %d rows: %v", written, err)
	}
	var n int
	if err := db.Row(t.Context(), `SELECT COUNT(*) FROM filler`, nil, &n); err != nil || n != written {
		t.Fatalf("%d rows of %d, %v", n, written, err)
	}
	if err := do(`DROP TABLE filler`); err != nil {
		t.Fatal(err)
	}
	until(t, "there is room again", func() bool {
		return do(`INSERT INTO a SELECT i, md5(i::text) FROM generate_series(2, 10000) AS i`) == nil
	})
	if n := count(t, db); n != 10000 {
		t.Fatalf("%d rows", n)
	}
}
