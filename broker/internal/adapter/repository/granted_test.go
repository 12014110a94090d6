package repository

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

func putFor(t *testing.T, s *Store, data []byte, persona string, readers ...host.Host) string {
	t.Helper()
	pin := PinFor{Owner: "task:1", Persona: persona}
	for _, h := range readers {
		pin.Readers = append(pin.Readers, h.ID().String())
	}
	c, _, err := s.Put(context.Background(), bytes.NewReader(data), pin)
	if err != nil {
		t.Fatal(err)
	}
	return c.String()
}

func at(h host.Host) Source { return Source{Peers: []string{h.ID().String()}} }

// expect checks whether a node that has nothing gets the content from a host. It waits long for what is to come, and a moment for what is not.
func expect(t *testing.T, what string, reader, from host.Host, c string, want bool) {
	t.Helper()
	s := newStore(t, anonymous, func(c *Config) {
		if c.StallTimeout = 400 * time.Millisecond; want {
			c.StallTimeout = time.Minute
		}
	})
	if err := s.Attach("", reader); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	know(reader, from)
	_, err := get(s, c, at(from))
	if want && err != nil {
		t.Errorf("%s: not given: %v", what, err)
	}
	if !want {
		wantFault(t, err, codes.Unavailable, ReasonUnreachable)
	}
}

// A host gives blocks to those only to whom its persona's pins grant them.
func TestGranted(t *testing.T) {
	t.Parallel()
	a := newStore(t, anonymous)
	own, throwAway := attach(t, a), attachAs(t, a, "p")
	friend, other, stranger := newHost(t), newHost(t), newHost(t)
	for i, size := range []int{1000, 3<<20 + 5} { // a raw block, and one with links
		c := putFor(t, a, randomBytes(uint64(i), size), "p", friend, other)
		for _, try := range []struct {
			who, from host.Host
			want      bool
		}{{friend, throwAway, true}, {other, throwAway, true}, {stranger, throwAway, false}, {friend, own, false}, {stranger, own, false}} {
			expect(t, fmt.Sprintf("%d bytes, to a stranger: %v, by the persona: %v", size, try.who == stranger, try.from == throwAway), try.who, try.from, c, try.want)
		}
		if err := a.Unpin([]content.Pin{{CID: c, Owner: "task:1"}}); err != nil {
			t.Fatal(err)
		}
		expect(t, "not pinned any more", friend, throwAway, c, false)
	}
}

// What two pins grant is granted as long as one of them lasts; a pin that is made again grants what it says then, and one that ends grants nothing.
func TestGrantsFollowPins(t *testing.T) {
	t.Parallel()
	var hours atomic.Int64
	a := newStore(t, anonymous, func(c *Config) { c.Now = func() time.Time { return time.Unix(hours.Load()*3600, 0) } })
	h := attach(t, a)
	first, second := newHost(t), newHost(t)
	c := putFor(t, a, randomBytes(1, 3<<20), "", first)
	pin := func(owner string, keep time.Duration, who host.Host) {
		t.Helper()
		if _, err := a.Pin(t.Context(), c, PinFor{Owner: owner, Keep: keep, Readers: []string{who.ID().String()}}, Source{}); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, who host.Host, want bool) {
		t.Helper()
		expect(t, what, who, h, c, want)
	}
	expect("before it is named", second, false)
	pin("share:x", 2*time.Hour, second)
	expect("named by another pin", second, true)
	expect("as before", first, true)
	pin("task:1", 0, second)
	expect("not named any more", first, false)
	pin("task:1", time.Hour, first)
	expect("named again", first, true)
	hours.Store(1)
	expect("after an hour", first, false)
	expect("with an hour to go", second, true)
	hours.Store(2)
	expect("after two hours", second, false)
}

// A broker that starts again gives what it gave before.
func TestGrantsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(c *Config) { c.Dir = dir }
	a := newStore(t, anonymous, in)
	friend, stranger := newHost(t), newHost(t)
	large := putFor(t, a, randomBytes(1, 5<<20), "p", friend)
	cids, err := a.PutMany([]Small{{Data: randomBytes(2, 1000), Pin: PinFor{Owner: "task:2", Persona: "p", Readers: []string{friend.ID().String()}}}})
	if err != nil {
		t.Fatal(err)
	}
	small := cids[0].String()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = newStore(t, anonymous, in)
	h := attachAs(t, a, "p")
	for _, c := range []string{small, large} {
		expect(t, "as before", friend, h, c, true)
		expect(t, "to a stranger", stranger, h, c, false)
	}
}

// wire is a peer that speaks bitswap by hand.
type wire struct {
	t       *testing.T
	h       host.Host
	to      peer.ID
	answers chan []byte
}

func newWire(t *testing.T, h, to host.Host) *wire {
	w := &wire{t: t, h: h, to: to.ID(), answers: make(chan []byte, 64)}
	h.SetStreamHandler(bsnet.ProtocolBitswap, func(s network.Stream) {
		r := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		for {
			m, err := r.ReadMsg()
			if err != nil {
				return
			}
			w.answers <- bytes.Clone(m)
			r.ReleaseMsg(m)
		}
	})
	connect(t, h, to)
	return w
}

func (w *wire) say(entries ...*pb.Message_Wantlist_Entry) {
	w.t.Helper()
	b, err := proto.Marshal(&pb.Message{Wantlist: &pb.Message_Wantlist{Entries: entries}})
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := w.h.NewStream(w.t.Context(), w.to, bsnet.ProtocolBitswap)
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	if err := msgio.NewVarintWriter(s).WriteMsg(b); err != nil {
		w.t.Fatal(err)
	}
}

// heard is the next answer, with a constant in the place of what it is about.
func (w *wire) heard(about cid.Cid) string {
	w.t.Helper()
	select {
	case b := <-w.answers:
		return string(bytes.ReplaceAll(b, about.Bytes(), []byte("<what was asked for>")))
	case <-time.After(time.Minute):
		w.t.Fatal("there was no answer")
		return ""
	}
}

func want(c cid.Cid, kind pb.Message_Wantlist_WantType, dontHave bool) *pb.Message_Wantlist_Entry {
	return &pb.Message_Wantlist_Entry{Block: c.Bytes(), Priority: 1, WantType: kind, SendDontHave: dontHave}
}

// Whatever is asked, and however, a block that may not be had is answered as one that is not there: byte by byte, and by silence where there is silence.
func TestRefusalLooksLikeAbsence(t *testing.T) {
	t.Parallel()
	a := newStore(t, anonymous)
	h := attach(t, a)
	parse := func(s string) cid.Cid {
		c, err := cid.Decode(s)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	absent := func(seed uint64, codec uint64) cid.Cid {
		c, err := cid.V1Builder{Codec: codec, MhType: builder.MhType}.Sum(randomBytes(seed, 50))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	friend := newHost(t)
	small, large := parse(putFor(t, a, randomBytes(1, 100), "", friend)), parse(putFor(t, a, randomBytes(2, 3<<20), "", friend))
	unpinned := parse(put(t, a, randomBytes(3, 300<<10), ""))
	for _, kind := range []pb.Message_Wantlist_WantType{pb.Message_Wantlist_Have, pb.Message_Wantlist_Block} {
		for _, pair := range []struct {
			what            string
			refused, absent cid.Cid
		}{
			{"a small block", small, absent(100, cid.Raw)}, {"a node with links", large, absent(101, cid.DagProtobuf)}, {"what nobody pins", unpinned, absent(102, cid.Raw)},
		} {
			var heard [2][]string
			for i, c := range []cid.Cid{pair.refused, pair.absent} {
				asker := newHost(t)
				mine, more := parse(putFor(t, a, []byte("what may be had"), "", asker)), parse(putFor(t, a, []byte("more of it"), "", asker))
				w := newWire(t, asker, h)
				w.say(want(c, kind, true))
				heard[i] = append(heard[i], w.heard(c))
				// Without DONT_HAVE there is no answer: the first one is to what is asked next.
				w.say(want(c, kind, false))
				w.say(want(mine, pb.Message_Wantlist_Block, false))
				heard[i] = append(heard[i], w.heard(c))
				// It takes a place in the list of what its peer wants, and is told of no more than another that came later.
				listed := len(a.personas[""].bitswap.Server.WantlistForPeer(asker.ID()))
				heard[i] = append(heard[i], fmt.Sprint(listed, " wants"))
				if kind == pb.Message_Wantlist_Block && c == pair.absent { // it comes, for somebody else
					putFor(t, a, randomBytes(map[string]uint64{"a small block": 100, "a node with links": 101, "what nobody pins": 102}[pair.what], 50), "", friend)
				}
				w.say(want(more, pb.Message_Wantlist_Block, false))
				heard[i] = append(heard[i], w.heard(c))
			}
			for j := range heard[0] {
				if heard[0][j] != heard[1][j] {
					t.Errorf("%s, %s, answer %d: refused it is %q, and absent %q", pair.what, kind, j, heard[0][j], heard[1][j])
				}
			}
			if bytes.Contains([]byte(heard[0][1]), []byte("<what")) || heard[0][2] != "1 wants" {
				t.Errorf("%s, %s: the answers are %q", pair.what, kind, heard[0])
			}
		}
	}
}

// The control of the test above: a block that may be had is told from one that may not.
func TestWhatIsGrantedIsAnswered(t *testing.T) {
	t.Parallel()
	a := newStore(t, anonymous)
	h, asker := attach(t, a), newHost(t)
	c, err := cid.Decode(putFor(t, a, randomBytes(1, 60<<10), "", asker))
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, asker, h)
	w.say(want(c, pb.Message_Wantlist_Have, true))
	if got := w.heard(c); len(got) < 60<<10 { // the block itself: a round trip less
		t.Errorf("asked whether it is there, the answer has %d bytes", len(got))
	}
}

func TestReadersAreChecked(t *testing.T) {
	t.Parallel()
	many := make([]string, content.MaxReaders+1)
	for i := range many {
		many[i] = newHost(t).ID().String()
	}
	a := newStore(t, anonymous)
	attach(t, a)
	kept := put(t, a, []byte("kept"), "user")
	for name, pin := range map[string]PinFor{
		"too many":          {Owner: "o", Readers: many},
		"no peer id":        {Owner: "o", Readers: []string{"12D3KooWnonsense"}},
		"an empty id":       {Owner: "o", Readers: []string{""}},
		"nobody to pin for": {Readers: many[:1]},
		"a long persona":    {Owner: "o", Persona: string(make([]byte, content.MaxPersona+1)), Readers: many[:1]},
	} {
		if _, _, err := a.Put(t.Context(), bytes.NewReader([]byte(name)), pin); err == nil {
			t.Errorf("%s: put", name)
		} else {
			wantFault(t, err, codes.InvalidArgument, "INVALID_ARGUMENT")
		}
		if _, err := a.PutMany([]Small{{Data: []byte(name), Pin: pin}}); err == nil {
			t.Errorf("%s: put as one of many", name)
		}
		if _, err := a.Pin(t.Context(), kept, pin, Source{}); err == nil {
			t.Errorf("%s: pinned", name)
		}
	}
	if _, _, err := a.Put(t.Context(), bytes.NewReader(nil), PinFor{Owner: "o", Readers: many[1:]}); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
	if pins, _, err := a.Pins("o", "", 10); err != nil || len(pins) != 1 || len(pins[0].Readers) != content.MaxReaders {
		t.Errorf("the pins are %+v, %v", pins, err)
	}
}

// In open mode everybody may have everything, whoever is named.
func TestOpenModeServesEverybody(t *testing.T) {
	t.Parallel()
	a, b := newStore(t), newStore(t)
	ha, hb := attach(t, a), attach(t, b)
	know(hb, ha)
	data := randomBytes(1, 1000)
	mustGet(t, b, putFor(t, a, data, "", newHost(t)), at(ha), data)
	if pins, _, err := a.Pins("", "", 10); err != nil || len(pins) != 1 || len(pins[0].Readers) != 0 {
		t.Errorf("the pins are %+v, %v", pins, err)
	}
}

// Whoever sends a block that another persona wants learns nothing by it.
func TestWantedIsAPersonasOwn(t *testing.T) {
	t.Parallel()
	a := newStore(t, anonymous)
	attach(t, a)
	attachAs(t, a, "p")
	c := builder // any
	id, err := c.Sum([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	a.personas["p"].net.wanted.add([]cid.Cid{id})
	if !a.personas["p"].net.wanted.has(id) || a.personas[""].net.wanted.has(id) {
		t.Error("what one persona wants another is known to want")
	}
}
