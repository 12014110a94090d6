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
