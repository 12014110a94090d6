package floor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

const (
	echoProto  = "/shallot-floor/echo/1"
	countProto = "/shallot-floor/count/1"
	topicName  = "floor"
)

// Events is a bare libp2p host here, and one in a child process that echoes messages and counts gossip.
type Events struct {
	size    int
	h       host.Host
	other   peer.ID
	streams []network.Stream
	topic   *pubsub.Topic
	seen    atomic.Int64
	stop    func()
}

// bareHost is TCP, noise and yamux without limits: the default ones reset streams at 64 callers.
func bareHost(listen bool) (host.Host, error) {
	opts := []libp2p.Option{libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{})}
	if listen {
		return libp2p.New(append(opts, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))...)
	}
	return libp2p.New(append(opts, libp2p.NoListenAddrs)...)
}

// runEvents is the child: what it hears on the topic it counts, and says on the stream of whoever asks to know.
func runEvents(size int) {
	h, err := bareHost(true)
	must(err)
	h.SetStreamHandler(echoProto, func(s network.Stream) {
		b := make([]byte, size)
		for {
			if _, err := io.ReadFull(s, b); err != nil {
				return
			}
			if _, err := s.Write(b); err != nil {
				return
			}
		}
	})
	topic := join(h)
	sub, err := topic.Subscribe(pubsub.WithBufferSize(4096))
	must(err)
	h.SetStreamHandler(countProto, func(s network.Stream) {
		for {
			if _, err := sub.Next(context.Background()); err != nil {
				return
			}
			if _, err := s.Write([]byte{1}); err != nil {
				return
			}
		}
	})
	say(fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID()))
}

func join(h host.Host) *pubsub.Topic {
	ps, err := pubsub.NewGossipSub(context.Background(), h)
	must(err)
	t, err := ps.Join(topicName)
	must(err)
	return t
}

// StartEvents starts both hosts; messages have size bytes. Stop it.
func StartEvents(size, streams int) (e *Events, err error) {
	e = &Events{size: size}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the floor did not start: %v", r)
		}
		if err != nil {
			e.Stop()
		}
	}()
	cmd := exec.Command("/proc/self/exe", ChildArg, "events", "", fmt.Sprint(size), "false")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(err)
	stdout, err := cmd.StdoutPipe()
	must(err)
	must(cmd.Start())
	e.stop = func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(err)
	info, err := peer.AddrInfoFromString(strings.TrimSpace(line))
	must(err)
	e.h, err = bareHost(false)
	must(err)
	e.other = info.ID
	must(e.h.Connect(context.Background(), *info))
	for range streams {
		s, err := e.h.NewStream(context.Background(), info.ID, echoProto)
		must(err)
		e.streams = append(e.streams, s)
	}
	e.topic = join(e.h)
	count, err := e.h.NewStream(context.Background(), info.ID, countProto)
	must(err)
	_, err = count.Write([]byte{0}) // a stream comes into being with its first bytes
	must(err)
	go func() {
		b := make([]byte, 256)
		for {
			n, err := count.Read(b)
			e.seen.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	for end := time.Now().Add(20 * time.Second); len(e.topic.ListPeers()) == 0; {
		if time.Now().After(end) {
			return nil, errors.New("the floor's hosts do not find each other on the topic")
		}
		<-time.After(20 * time.Millisecond)
	}
	return e, nil
}

// Echo sends one message on stream i, and returns when it has come back.
func (e *Events) Echo(i int, b []byte) error {
	if _, err := e.streams[i].Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(e.streams[i], b)
	return err
}

// Publish gossips one message, signed as gossipsub does by itself; Seen counts what the other host has heard.
func (e *Events) Publish(ctx context.Context, b []byte) error { return e.topic.Publish(ctx, b) }

// Seen counts what the other host has heard.
func (e *Events) Seen() int64 { return e.seen.Load() }

// Stop ends both hosts.
func (e *Events) Stop() {
	if e.h != nil {
		_ = e.h.Close()
	}
	if e.stop != nil {
		e.stop()
	}
}
