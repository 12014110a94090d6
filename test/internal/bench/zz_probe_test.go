package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"github.com/shallot-net/shallot/test/internal/dev"
)

func TestProbe(t *testing.T) {
	dir := os.Getenv("PROBE_DIR")
	n, err := dev.Start(t.Context(), dev.Config{Bin: os.Getenv("SHALLOT_BIN"), Dir: filepath.Join(dir, "tor"), Providers: 1, Consumers: 1, Args: []string{"--anonymous"}, Timeout: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Stop()
	e, err := newOnionEcho(t.Context(), filepath.Join(dir, "tor"))
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	e.listener.Close()
	socket := filepath.Join(e.dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var h [12]byte
				for {
					if _, err := io.ReadFull(c, h[:]); err != nil {
						return
					}
					up, down, ms := binary.BigEndian.Uint32(h[:]), binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
					if _, err := io.CopyN(io.Discard, c, int64(up)-12); err != nil {
						return
					}
					if ms > 0 { // an acknowledgement, then the answer some ms later
						c.Write(make([]byte, 1024))
						time.Sleep(time.Duration(ms) * time.Millisecond)
					}
					c.Write(make([]byte, down))
				}
			}()
		}
	}()
	type kind struct{ up, down, ms uint32 }
	kinds := []kind{{64, 64, 0}, {512, 512, 0}, {1024, 1024, 0}, {1200, 1200, 0}, {1400, 1400, 0}, {1536, 1536, 0}, {2048, 1024, 0}, {1024, 2048, 0}, {2048, 2048, 0}, {3072, 1024, 0}, {1024, 3072, 0}, {4096, 4096, 0}, {1024, 1024, 1}, {1024, 1024, 3},{512,512,1}}
	got := map[kind][]time.Duration{}
	var conn []time.Duration
	for range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		d, _ := proxy.SOCKS5("unix", e.socks, &proxy.Auth{User: rand.Text(), Password: "-"}, nil)
		b := time.Now()
		c, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", e.address, echoPort))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		conn = append(conn, time.Since(b))
		for range 3 {
			for _, k := range kinds {
				m := bytes.Repeat([]byte{0}, int(k.up))
				binary.BigEndian.PutUint32(m, k.up)
				binary.BigEndian.PutUint32(m[4:], k.down)
				binary.BigEndian.PutUint32(m[8:], k.ms)
				want := int64(k.down)
				if k.ms > 0 {
					want += 1024
				}
				b := time.Now()
				c.Write(m)
				if _, err := io.CopyN(io.Discard, c, want); err != nil {
					t.Fatal(err)
				}
				got[k] = append(got[k], time.Since(b))
			}
		}
		c.Close()
	}
	slices.Sort(conn)
	t.Logf("connect p50 %v p90 %v", conn[len(conn)/2], conn[len(conn)*9/10])
	for _, k := range kinds {
		d := got[k]
		slices.Sort(d)
		t.Logf("%5d up %5d down ack+%d: p10 %v p50 %v p90 %v", k.up, k.down, k.ms, d[len(d)/10].Round(time.Millisecond), d[len(d)/2].Round(time.Millisecond), d[len(d)*9/10].Round(time.Millisecond))
	}
}
