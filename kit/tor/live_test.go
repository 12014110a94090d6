package tor_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"github.com/shallot-net/shallot/kit/tor"
)

// needTor finds tor, or leaves the test out where there is none; in CI there must be one.
func needTor(t *testing.T) tor.Program {
	t.Helper()
	if testing.Short() {
		t.Skip("a Tor network takes half a minute")
	}
	p, err := tor.Find("")
	if err == nil {
		return p
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skipf("left out: %v", err)
	return p
}

// client is one tor that uses a private network.
type client struct {
	cfg  tor.ClientConfig
	proc *tor.Process
	done chan struct{} // closed at 100 %
}

// startClient starts a tor and waits until it has joined.
func startClient(ctx context.Context, t *testing.T, p tor.Program, net *tor.Private) *client {
	t.Helper()
	dir := shortDir(t)
	c := &client{cfg: net.Client(filepath.Join(dir, "tor"), filepath.Join(dir, "run")), done: make(chan struct{})}
	if err := c.cfg.Write(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var log lastLines
	proc, err := tor.StartProcess(tor.ProcessConfig{Program: p, Torrc: c.cfg.TorrcFile(), Line: log.add, Bootstrap: func(b tor.Bootstrap) {
		if b.Percent == 100 {
			close(c.done)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proc.Stop(5 * time.Second) })
	c.proc = proc
	select {
	case <-c.done:
		t.Logf("a client joined in %v", time.Since(began).Round(10*time.Millisecond))
	case <-proc.Done():
		t.Fatalf("the client ended: %v\n%s", proc.Err(), log.String())
	case <-ctx.Done():
		t.Fatalf("the client did not join: %v\n%s", context.Cause(ctx), log.String())
	}
	return c
}

// control is a connection to a control port.
type control struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func (c *client) control(t *testing.T) *control {
	t.Helper()
	conn, err := net.Dial("unix", c.cfg.ControlSocket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	cookie, err := os.ReadFile(c.cfg.CookieFile())
	if err != nil {
		t.Fatal(err)
	}
	ctl := &control{t, conn, bufio.NewReader(conn)}
	ctl.command("AUTHENTICATE " + hex.EncodeToString(cookie))
	return ctl
}

// command returns what tor answers, line by line.
func (c *control) command(line string) (out []string) {
	c.t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	for {
		s := c.line()
		out = append(out, s)
		if len(s) > 3 && s[3] == ' ' {
			if s[:3] != "250" {
				c.t.Fatalf("%s: %s", strings.Fields(line)[0], s)
			}
			return out
		}
	}
}

func (c *control) line() string {
	c.t.Helper()
	s, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimRight(s, "\r\n")
}

// addEcho makes an onion service that gives back what it gets, and returns its address when the network has it.
func (c *client) addEcho(t *testing.T) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "echo.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	ctl := c.control(t)
	ctl.command("SETEVENTS HS_DESC")
	said := ctl.command("ADD_ONION NEW:ED25519-V3 Flags=DiscardPK Port=4001,unix:" + path)
	id, ok := strings.CutPrefix(said[0], "250-ServiceID=")
	if !ok {
		t.Fatalf("ADD_ONION: %q", said)
	}
	_ = ctl.conn.SetDeadline(time.Now().Add(60 * time.Second))
	for !strings.HasPrefix(ctl.line(), "650 HS_DESC UPLOADED "+id) {
	}
	return id + ".onion:4001"
}

// echo sends bytes to an onion service and returns what comes back.
func (c *client) echo(ctx context.Context, addr, user, text string) (string, error) {
	d, err := proxy.SOCKS5("unix", c.cfg.SocksSocket(), &proxy.Auth{User: user, Password: "-"}, nil)
	if err != nil {
		return "", err
	}
	conn, err := d.(proxy.ContextDialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	until, _ := ctx.Deadline()
	_ = conn.SetDeadline(until)
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	got := make([]byte, len(text))
	_, err = io.ReadFull(conn, got)
	return string(got), err
}

// reach dials an onion service until it answers: its descriptor may be on its way.
func (c *client) reach(ctx context.Context, t *testing.T, addr string) {
	t.Helper()
	began := time.Now()
	for i := 0; ; i++ {
		text := fmt.Sprintf("bytes there and back, %d", i)
		got, err := c.echo(ctx, addr, fmt.Sprint("u", i), text)
		if err == nil && got == text {
			t.Logf("reached an onion service in %v at try %d", time.Since(began).Round(10*time.Millisecond), i+1)
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the onion service was not reached in %v: %v", time.Since(began), err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// shortDir is a directory whose path leaves room for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
