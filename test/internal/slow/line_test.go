package slow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/proxy"
)

// Round trips have the mean that was asked for, some take longer than 2.5 s, none less than what they always take, and a seed decides them.
func TestDelaysFollowTheStudy(t *testing.T) {
	for _, mean := range Studied {
		const n = 40_000
		one, other := delays(mean, 1, 0), delays(mean, 1, 0)
		sum, long := time.Duration(0), 0
		for range n {
			d := one() + one()
			if d != other()+other() {
				t.Fatal("the same seed draws another delay")
			}
			if sum += d; d > 2500*time.Millisecond {
				long++
			}
			if d < time.Duration((1-queueing)*float64(mean)) {
				t.Fatalf("a round trip of %v", d)
			}
		}
		if got := sum / n; (got - mean).Abs() > mean/50 {
			t.Errorf("the mean is %v, want %v", got, mean)
		}
		if share := float64(long) / n; share < 0.005 || share > 0.05 {
			t.Errorf("%.2f %% take longer than 2.5 s", 100*share)
		}
	}
}

// What goes through arrives whole, in order, and late, and the end arrives behind it.
func TestCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, sent := net.Pipe()
		arrives, out := net.Pipe()
		delays := []time.Duration{3 * time.Second, time.Second, 2 * time.Second}
		go func() {
			carry(out, in, func() (d time.Duration) {
				d, delays = delays[0], delays[1:]
				return d
			})
			out.Close()
		}()
		begin := time.Now()
		go func() {
			for i, after := range []time.Duration{0, 100 * time.Millisecond, 1900 * time.Millisecond, 5 * time.Second} { // the second is of the first one's burst; the third would overtake both
				<-time.After(after)
				fmt.Fprint(sent, i)
			}
			sent.Close()
		}()
		for i, want := range []time.Duration{3 * time.Second, 3100 * time.Millisecond, 3100 * time.Millisecond, 9 * time.Second} {
			var b [1]byte
			if _, err := io.ReadFull(arrives, b[:]); err != nil || string(b[:]) != fmt.Sprint(i) || time.Since(begin) != want {
				t.Fatalf("%q came after %v, want %d after %v: %v", b, time.Since(begin), i, want, err)
			}
		}
		if _, err := arrives.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}

// A line takes a socket's place and gives it back. What is said to the proxy itself takes no time; what goes through it takes a round trip and more.
func TestLineStandsIn(t *testing.T) {
	dir, err := os.MkdirTemp("", "line") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	users := fakeSOCKS(t, socket)
	l, err := StandIn(socket)
	if err != nil {
		t.Fatal(err)
	}
	const mean = 200 * time.Millisecond
	l.Use(mean, 1)
	d, err := proxy.SOCKS5("unix", socket, &proxy.Auth{User: "me", Password: "-"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	c, err := d.Dial("tcp", "x.onion:7")
	if err != nil {
		t.Fatal(err)
	}
	if user := <-users; user != "me" {
		t.Errorf("it came as %q", user)
	}
	said, heard := bytes.Repeat([]byte("there and back "), 10_000), make([]byte, 150_000)
	go func() { _, _ = c.Write(said) }()
	if _, err := io.ReadFull(c, heard); err != nil || !bytes.Equal(said, heard) {
		t.Error("it is not what was said:", err)
	}
	if took, least := time.Since(begin), 2*time.Duration((1-queueing)*float64(mean)); took < least { // one to connect, one there and back
		t.Errorf("two round trips took %v, and take %v at the least", took, least)
	}
	c.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	back, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal("the socket has not got its place back:", err)
	}
	back.Close()
	if _, err := StandIn(filepath.Join(dir, "nothing")); err == nil {
		t.Error("it stands in for nothing")
	}
}

// fakeSOCKS is a proxy whose every address gives back what it gets; who came is told.
func fakeSOCKS(t *testing.T, socket string) (users chan string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	users = make(chan string, 1)
	read := func(c io.Reader, n int) []byte { b := make([]byte, n); _, _ = io.ReadFull(c, b); return b }
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				head := read(c, 2)
				read(c, int(head[1]))
				_, _ = c.Write([]byte{5, 2})
				user := read(c, int(read(c, 2)[1]))
				read(c, int(read(c, 1)[0]))
				_, _ = c.Write([]byte{1, 0})
				read(c, int(read(c, 5)[4])+2)
				_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
				users <- string(user)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return users
}
