package app

import (
	"log/slog"
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/book"
)

// slowBook is a disk that takes its time.
type slowBook struct {
	begun, on chan struct{}
	saved     [][]book.Entry
}

func (b *slowBook) Load() ([]book.Entry, error) { return nil, nil }

func (b *slowBook) Save(entries []book.Entry) error {
	b.begun <- struct{}{}
	<-b.on
	b.saved = append(b.saved, entries)
	return nil
}

// Who comes and goes is noted while the disk is busy, and what was noted meanwhile is written next, also when that is the end.
func TestKnownDoesNotWaitForTheDisk(t *testing.T) {
	disk := &slowBook{begun: make(chan struct{}), on: make(chan struct{})}
	k := &known{store: disk, log: slog.New(slog.DiscardHandler)}
	k.reached("a", []string{"/ip4/192.0.2.1/tcp/1"})
	go k.save()
	<-disk.begun
	noted := make(chan int)
	go func() {
		k.reached("b", []string{"/ip4/192.0.2.1/tcp/2"})
		k.routed("c", []string{"/ip4/192.0.2.1/tcp/3"})
		noted <- len(k.seeds())
	}()
	select {
	case n := <-noted:
		if n != 3 {
			t.Errorf("%d are known", n)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for the disk")
	}
	closed := make(chan struct{})
	go func() {
		k.close()
		close(closed)
	}()
	disk.on <- struct{}{}
	<-disk.begun
	disk.on <- struct{}{}
	<-closed
	k.reached("late", []string{"/ip4/192.0.2.1/tcp/4"})
	if n := len(disk.saved); n != 2 || len(disk.saved[0]) != 1 || len(disk.saved[1]) != 3 || len(k.seeds()) != 3 {
		t.Errorf("it was saved %d times, %v, and knows %v", n, disk.saved, k.seeds())
	}
}
