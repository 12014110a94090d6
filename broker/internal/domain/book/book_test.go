package book_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/book"
)

var now = time.Unix(1_800_000_000, 0)

func TestTheLatestComesFirst(t *testing.T) {
	var b book.Book
	b.Reached("a", "/1", now)
	b.Reached("b", "/2", now.Add(time.Second))
	b.Reached("a", "/3", now.Add(2*time.Second))
	b.Reached("a", "/1", now.Add(3*time.Second))
	got := b.Entries()
	if len(got) != 2 || got[0].Peer != "a" || !slices.Equal(got[0].Addresses, []string{"/1", "/3"}) || !got[0].At.Equal(now.Add(3*time.Second)) {
		t.Errorf("the book is %+v", got)
	}
	var again book.Book
	again.Restore(b.Entries(), now.Add(time.Minute))
	if fmt.Sprint(again.Entries()) != fmt.Sprint(got) {
		t.Errorf("restored it is %+v, want %+v", again.Entries(), got)
	}
}

func TestBookIsBounded(t *testing.T) {
	var b book.Book
	for i := range 10 * book.MaxPeers {
		b.Reached(fmt.Sprint("p", i), "/a", now.Add(time.Duration(i)*time.Second))
		b.Reached("busy", fmt.Sprint("/", i), now.Add(time.Duration(i)*time.Second))
	}
	got := b.Entries()
	if len(got) != book.MaxPeers || got[0].Peer != "busy" || len(got[0].Addresses) != book.MaxAddresses || got[1].Peer != "p639" {
		t.Errorf("%d peers, first %+v, then %+v", len(got), got[0], got[1])
	}
}

func TestWhatIsNoEntryIsLeftOut(t *testing.T) {
	var b book.Book
	b.Restore([]book.Entry{
		{Peer: "", Addresses: []string{"/a"}, At: now}, {Peer: "none", At: now}, {Peer: "name", Addresses: []string{"host:1"}, At: now},
		{Peer: "long", Addresses: []string{"/" + strings.Repeat("x", 999)}, At: now},
		{Peer: "old", Addresses: []string{"/a"}, At: now.Add(-book.KeepFor - 1)},
		{Peer: "early", Addresses: []string{"/a"}, At: now.Add(time.Hour)},
	}, now)
	if got := b.Entries(); len(got) != 1 || got[0].Peer != "early" || !got[0].At.Equal(now) {
		t.Errorf("the book is %+v", got)
	}
}

// Who was only heard of comes last, takes nobody's place who was reached, and is reached once it was dialled.
func TestHeard(t *testing.T) {
	t.Parallel()
	var b book.Book
	for _, bad := range []struct {
		peer      string
		addresses []string
	}{{"", []string{"/a"}}, {"p", nil}, {"p", []string{"a"}}, {strings.Repeat("p", book.MaxText+1), []string{"/a"}}} {
		if b.Heard(bad.peer, bad.addresses, now) {
			t.Errorf("%v is news", bad)
		}
	}
	b.Reached("reached", "/r", now)
	if !b.Heard("one", []string{"/1", "/2", "/3", "/4", "/5"}, now) || !b.Heard("two", []string{"/2"}, now) || b.Heard("two", []string{"/2"}, now.Add(time.Minute)) ||
		b.Heard("reached", []string{"/lie"}, now) {
		t.Error("what is news is not told from what is not")
	}
	if !b.Heard("two", []string{"/other"}, now.Add(time.Minute)) || !b.Heard("one", []string{"/1"}, now.Add(2*time.Hour)) {
		t.Error("another address, and the same much later, are news")
	}
	var got []string
	for _, e := range b.Entries() {
		got = append(got, e.Peer)
	}
	if !slices.Equal(got, []string{"reached", "one", "two"}) || len(b.Entries()[1].Addresses) != 1 {
		t.Errorf("the book has %v", b.Entries())
	}
	for i := range 2 * book.MaxPeers {
		b.Heard(fmt.Sprint("flood", i), []string{"/f"}, now)
	}
	b.Reached("late", "/l", now)
	e := b.Entries()
	if len(e) != book.MaxPeers || e[0].Peer != "late" || e[1].Peer != "reached" || !e[2].Heard {
		t.Errorf("a flood has changed the book to %v", e[:3])
	}
	var restored book.Book
	restored.Restore(e, now)
	if got := restored.Entries(); len(got) != book.MaxPeers || got[0].Heard || got[1].Heard || !got[2].Heard {
		t.Errorf("restored, it begins with %v", got[:3])
	}
	last := e[len(e)-1].Peer
	b.Reached(last, "/dialled", now)
	if e := b.Entries()[0]; e.Peer != last || e.Heard || !slices.Equal(e.Addresses, []string{"/dialled"}) {
		t.Errorf("once reached it is %v", e)
	}
}
