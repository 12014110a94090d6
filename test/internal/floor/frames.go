// Package floor is what a task costs at the least: the same way through the same seven processes, made of the bare
// libraries. Nothing is validated, signed, retried, limited or observed, and any error ends the process. What Shallot takes
// beyond it is the price of being a product; `make bench` shows both, from the same minutes.
package floor

import (
	"context"
	"encoding/binary"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// bytesCodec carries byte slices as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string                  { return "bytes" }
func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// A message on a link is its number and its body; an answer has the same number and the top bit set.
const answerBit = 1 << 63

// link is one bidirectional stream between two processes, on which both sides may ask.
type link struct {
	out     chan []byte
	next    atomic.Uint64
	mu      sync.Mutex
	waiting map[uint64]chan []byte
	handle  func(body []byte) []byte
}

type rawStream interface {
	SendMsg(any) error
	RecvMsg(any) error
}

func newLink(handle func([]byte) []byte) *link {
	return &link{out: make(chan []byte, 1024), waiting: map[uint64]chan []byte{}, handle: handle}
}

// run carries messages until the stream ends.
func (l *link) run(s rawStream) {
	go func() {
		for m := range l.out {
			if s.SendMsg(&m) != nil {
				return
			}
		}
	}()
	for {
		var m []byte
		if s.RecvMsg(&m) != nil {
			return
		}
		l.arrived(m)
	}
}

func (l *link) arrived(m []byte) {
	n, body := binary.BigEndian.Uint64(m), m[8:]
	if n&answerBit != 0 {
		l.mu.Lock()
		w := l.waiting[n&^answerBit]
		delete(l.waiting, n&^answerBit)
		l.mu.Unlock()
		if w != nil { // the first bytes of a stream answer nobody
			w <- body
		}
		return
	}
	go func() { l.out <- message(n|answerBit, l.handle(body)) }()
}

func message(n uint64, body []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(body)), n), body...)
}

func (l *link) ask(body []byte) []byte {
	n, w := l.next.Add(1), make(chan []byte, 1)
	l.mu.Lock()
	l.waiting[n] = w
	l.mu.Unlock()
	l.out <- message(n, body)
	return <-w
}

const method = "/floor.Floor/Link"

var streamDesc = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// listen serves streams on the role's socket.
func listen(dir, role string, serve func(rawStream)) {
	s := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "floor.Floor", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Link", ClientStreams: true, ServerStreams: true,
		Handler: func(_ any, st grpc.ServerStream) error { serve(st); return nil },
	}}}, nil)
	l, err := net.Listen("unix", filepath.Join(dir, role))
	must(err)
	go func() { must(s.Serve(l)) }()
}

func connect(dir, role string) *grpc.ClientConn {
	c, err := grpc.NewClient("unix:"+filepath.Join(dir, role), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{}), grpc.WaitForReady(true)))
	must(err)
	return c
}

func open(ctx context.Context, c *grpc.ClientConn) grpc.ClientStream {
	s, err := c.NewStream(ctx, streamDesc, method)
	must(err)
	return s
}

// dial opens a link to another process.
func dial(dir, role string, handle func([]byte) []byte) *link {
	l := newLink(handle)
	go l.run(open(context.Background(), connect(dir, role)))
	return l
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// pack and unpack put byte strings behind one another, each with its length before it.
func pack(fields ...[]byte) []byte {
	var b []byte
	for _, f := range fields {
		b = append(binary.AppendUvarint(b, uint64(len(f))), f...)
	}
	return b
}

func unpack(b []byte) (fields [][]byte) {
	for len(b) > 0 {
		n, k := binary.Uvarint(b)
		fields, b = append(fields, b[k:k+int(n)]), b[k+int(n):]
	}
	return fields
}
