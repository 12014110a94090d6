package floor

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

const proto = protocol.ID("/shallot-floor/1")

// What a broker is asked, by the first byte; an event begins with the length of a task id, 16.
const putBlock, iAmNode = 'P', 'N'

// peerStream carries a link's messages over libp2p streams, one for each direction.
type peerStream struct {
	in  *bufio.Reader
	out *bufio.Writer
	l   *link
}

func (p *peerStream) SendMsg(m any) error {
	b := *m.(*[]byte)
	if err := binary.Write(p.out, binary.BigEndian, uint32(len(b))); err != nil {
		return err
	}
	if _, err := p.out.Write(b); err != nil {
		return err
	}
	if len(p.l.out) > 0 { // more is coming: one write for all
		return nil
	}
	return p.out.Flush()
}

func (p *peerStream) RecvMsg(m any) error {
	var head [4]byte
	if _, err := io.ReadFull(p.in, head[:]); err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(p.in, b)
	*m.(*[]byte) = b
	return err
}

// runBroker passes events between its node and the other broker, and keeps blocks. other: the address to dial.
func runBroker(dir, role, other string) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.DisableRelay(), libp2p.DisableMetrics())
	must(err)
	log, err := os.Create(filepath.Join(dir, role+".blocks"))
	must(err)
	bl := &blocks{log: log}
	nodes := make(chan *link, 1)
	node := sync.OnceValue(func() *link { return <-nodes })
	peers := newLink(func(event []byte) []byte { return node().ask(event) })
	start := func(out, in network.Stream) {
		peers.run(&peerStream{bufio.NewReaderSize(in, 64<<10), bufio.NewWriterSize(out, 64<<10), peers})
	}
	h.SetStreamHandler(proto, func(s network.Stream) {
		if other == "" {
			back, err := h.NewStream(context.Background(), s.Conn().RemotePeer(), proto)
			must(err)
			hello(back)
			start(back, s)
		} else {
			start(<-mine, s)
		}
	})
	listen(dir, role, func(s rawStream) {
		var l *link
		l = newLink(func(b []byte) []byte {
			switch b[0] {
			case putBlock:
				return bl.put(b[1:])
			case iAmNode:
				nodes <- l
				return nil
			}
			return peers.ask(b)
		})
		l.run(s)
	})
	if other == "" {
		say(fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID()))
		return
	}
	info, err := peer.AddrInfoFromString(other)
	must(err)
	must(h.Connect(context.Background(), *info))
	s, err := h.NewStream(context.Background(), info.ID, proto)
	must(err)
	mine <- s
	hello(s)
	say("ready")
}

// hello makes a stream exist at the other side, where it comes into being with its first bytes.
func hello(s network.Stream) {
	_, err := s.Write(append([]byte{0, 0, 0, 8}, message(answerBit, nil)...))
	must(err)
}

// mine is the stream that the dialling broker has opened.
var mine = make(chan network.Stream, 1)
