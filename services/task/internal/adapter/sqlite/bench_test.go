package sqlite_test

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shallot-net/shallot/services/task/internal/adapter/sqlite"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func text(n int) string {
	b := random(n)
	for i := range b {
		b[i] = 'a' + b[i]%26
	}
	return string(b)
}

// BenchmarkTask is what one small task writes at either side, 64 in flight, in CPU and in bytes of the log.
func BenchmarkTask(b *testing.B) {
	for _, c := range []struct {
		name string
		do   func(b *testing.B, s *sqlite.Store, n uint64)
	}{{"provider", providerTask}, {"consumer", consumerTask(0)}, {"consumer, of 10 that are known", consumerTask(10)}} {
		b.Run(c.name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "task.db")
			s, err := sqlite.Open(b.Context(), path, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			work := make(chan uint64)
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					for n := range work {
						c.do(b, s, n)
					}
				})
			}
			begin := usage()
			n := uint64(0)
			for b.Loop() {
				n++
				work <- n
			}
			close(work)
			wg.Wait()
			u := usage()
			b.ReportMetric(float64((u.cpu-begin.cpu).Microseconds())/float64(n), "cpu-us/op")
			b.ReportMetric(float64(u.written-begin.written)/float64(n)/1024, "KiB-written/op")
			if info, err := os.Stat(path); err == nil {
				b.ReportMetric(float64(info.Size())/float64(n), "file-B/op")
			}
		})
	}
}

type used struct {
	cpu     time.Duration
	written int64
}

func usage() used {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return used{time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Oublock * 512}
}

const benchPeer = "12D3KooWGRYmVLUTGsjSZVtMQ5hyLpFEnbSJZfkYmBk2ZRMVNrVx"

func providerTask(b *testing.B, s *sqlite.Store, n uint64) {
	id, now := app.NewID(), time.Now()
	e := &domain.Entry{TaskID: id, Consumer: benchPeer, Sub: domain.Submission{TaskID: id, Attempt: 1, Type: "wasm", PayloadHash: domain.Hash(random(32)), Recipient: text(1960),
		PayloadSize: 1000, Redirect: true, Keep: 48 * time.Hour}, Limits: domain.Limits{Time: time.Minute, Memory: 1 << 28, Output: 1 << 20}, State: domain.Accepted, CreatedAt: now}
	_ = e.Start(now)
	hash := domain.Hash(random(32))
	_ = e.End(now, domain.Outcome{Usage: domain.Usage{Wall: 1234567, CPU: 234567, PeakMemory: 1 << 20, Output: 5}, Program: domain.Hash(random(32)), ResultHash: hash, ResultSize: 1900, ResultCID: app.SmallCID(hash)})
	e.Revision = 1
	row := app.OutboxRow{ID: n, TaskID: id, Attempt: 1, Peer: benchPeer, EventID: app.NewID(), Type: domain.TypeResult, Payload: random(300), Sign: true, Attach: app.AttachResult}
	w := &app.Writes{Outbox: []app.OutboxRow{row}, Entries: []app.EntryWrite{{Entry: e, Insert: true, Result: random(1900)}}}
	if err := s.Commit(b.Context(), w); err != nil {
		b.Error(err)
	}
	s.Later(&app.Writes{Sent: []uint64{n}})
	e = e.Clone()
	e.Collect(now, 48*time.Hour)
	e.Revision++
	s.Later(&app.Writes{Entries: []app.EntryWrite{{Entry: e, Forget: true, DropResult: true}}})
}

// consumerTask considers so many providers and keeps why it chose as it did; 0: as it was before that was kept.
func consumerTask(known int) func(*testing.B, *sqlite.Store, uint64) {
	var why *domain.Choice
	for i := range known {
		if why == nil {
			why = &domain.Choice{Because: "LESS_BUSY", Known: uint32(known), Qualified: uint32(known)}
		}
		x := domain.Considered{Peer: benchPeer[:48] + text(4), Cost: 1250, Verdict: "NOT_DRAWN", Reason: "not drawn"}
		if i < 2 {
			x.Verdict, x.Reason = "BUSIER", "load not known, 3 tasks from here"
		}
		why.Considered = append(why.Considered, x)
	}
	return func(b *testing.B, s *sqlite.Store, n uint64) { submitted(b, s, n, why) }
}

func submitted(b *testing.B, s *sqlite.Store, n uint64, why *domain.Choice) {
	now := time.Now()
	t := domain.NewTask(domain.Task{ID: app.NewID(), RequestID: app.NewID(), Type: "wasm", Clocks: domain.DefaultClocks, Keep: 48 * time.Hour, PayloadHash: domain.Hash(random(32)), PayloadSize: 1000,
		ProgramHash: domain.Hash(random(32))}, now)
	if err := t.Place(now, domain.Attempt{Peer: benchPeer, Addresses: []string{"/ip4/127.0.0.1/tcp/40123/p2p/" + benchPeer}, Choice: why}, "the only one that is known"); err != nil {
		b.Error(err)
	}
	t.Revision = 1
	row := app.OutboxRow{ID: n, TaskID: t.ID, Attempt: 1, Peer: benchPeer, EventID: app.NewID(), Type: domain.TypeSubmission, Payload: random(2300), Sign: true, Attach: app.AttachPayload,
		Timeout: time.Minute, Sealed: random(1700), Addresses: t.Attempts[0].Addresses}
	if err := s.Commit(b.Context(), &app.Writes{Tasks: []app.TaskWrite{{Task: t, Insert: true, Secret: random(100), Payload: random(1000)}}, Outbox: []app.OutboxRow{row}}); err != nil {
		b.Error(err)
	}
	t = t.Clone()
	hash := domain.Hash(random(32))
	if err := t.Receive(now, domain.Receipt{Attempt: 1, Peer: benchPeer, Usage: domain.Usage{Wall: 1234567, CPU: 234567, PeakMemory: 1 << 20, Output: 5}, Program: t.ProgramHash, Hash: hash, Size: 1900, CID: app.SmallCID(hash)}); err != nil {
		b.Error(err)
	}
	if err := t.Settle(now, &domain.Result{CID: app.SmallCID(hash), Parts: []domain.Part{{Name: "stdout", Size: 5, SHA256: hash}, {Name: "stderr", SHA256: hash}}}); err != nil {
		b.Error(err)
	}
	t.Revision = 2
	release := app.ReleaseRow{TaskID: t.ID, Attempt: 1, Peer: benchPeer, Addresses: t.Attempts[0].Addresses}
	if err := s.Commit(b.Context(), &app.Writes{Inbox: []app.InboxID{app.InboxIDOf(benchPeer, app.NewID())}, Tasks: []app.TaskWrite{{Task: t, Forget: true, Body: random(5)}}, Sent: []uint64{n},
		Releases: []app.ReleaseRow{release}}); err != nil {
		b.Error(err)
	}
	s.Later(&app.Writes{Released: []app.ReleaseRow{release}})
}
