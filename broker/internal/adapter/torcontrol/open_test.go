package torcontrol_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shallot-net/shallot/broker/internal/adapter/torcontrol"
	"github.com/shallot-net/shallot/broker/internal/adapter/torcontrol/torcontroltest"
	"github.com/shallot-net/shallot/broker/internal/app/onions"
	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
)

func open(t *testing.T, cfg torcontrol.Config) (onions.Session, error) {
	t.Helper()
	s, err := torcontrol.New(cfg).Open(t.Context())
	if err == nil {
		t.Cleanup(s.Close)
	}
	return s, err
}

// Every way of a control port to be of no use: one line that says what, where and how to mend it, in bounded time and bytes.
func TestOpenRefuses(t *testing.T) {
	write := func(t *testing.T, data string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	type change func(t *testing.T, b *torcontroltest.Behaviour, cfg *torcontrol.Config)
	reply := func(word, text string) change {
		return func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.Replies[word] = text }
	}
	endless := strings.Repeat("250-x\r\n", 100_000)
	for name, c := range map[string]struct {
		refused bool
		detail  string
		change  change
	}{
		"open to everybody": {true, "CookieAuthentication 1", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.Methods = "NULL" }},
		"open and a cookie": {true, "open to everybody", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.Methods = "NULL,SAFECOOKIE" }},
		"no method":         {true, "CookieAuthentication 1", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.Methods = "NEW" }},
		"password only":     {true, "--password-file", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.Methods = "HASHEDPASSWORD" }},
		"no password":       {true, "leave --password-file out", func(_ *testing.T, _ *torcontroltest.Behaviour, cfg *torcontrol.Config) { cfg.PasswordFile = "/x" }},
		"wrong password": {true, "HashedControlPassword", func(t *testing.T, b *torcontroltest.Behaviour, cfg *torcontrol.Config) {
			b.Methods, b.Password, cfg.PasswordFile = "HASHEDPASSWORD", "right", write(t, "wrong\n", 0o600)
		}},
		"password of all": {true, "chmod 600", func(t *testing.T, b *torcontroltest.Behaviour, cfg *torcontrol.Config) {
			b.Methods, cfg.PasswordFile = "HASHEDPASSWORD", write(t, "x\n", 0o644)
		}},
		"empty password": {true, "one line", func(t *testing.T, b *torcontroltest.Behaviour, cfg *torcontrol.Config) {
			b.Methods, cfg.PasswordFile = "HASHEDPASSWORD", write(t, "\n", 0o600)
		}},
		"too old":                    {true, "tor 0.4.6.12", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.Version = "0.4.6.12" }},
		"no version":                 {true, "does not say which version", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.Version = "" }},
		"odd version":                {true, "does not say which version", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.Version = "at 192.0.2.1" }},
		"single hop":                 {true, "HiddenServiceSingleHopMode", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.SingleHop = true }},
		"says nothing of single hop": {true, "does not say whether", reply("GETCONF", "250 SocksPort=x\r\n")},
		"no cookie":                  {true, "there is no cookie file", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.CookieFile += "x" }},
		"cookie of another": {true, "is not the one", func(t *testing.T, _ *torcontroltest.Behaviour, cfg *torcontrol.Config) {
			cfg.CookieFile = write(t, strings.Repeat("x", 32), 0o600)
		}},
		"no cookie at all": {true, "is no cookie", func(t *testing.T, _ *torcontroltest.Behaviour, cfg *torcontrol.Config) {
			cfg.CookieFile = write(t, "x", 0o600)
		}},
		"a relative cookie": {true, "no absolute path", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.CookieFile = "cookie" }},
		"a pipe for a cookie": {true, "is no cookie", func(t *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) {
			b.CookieFile = filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(b.CookieFile, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		"an endless device": {true, "is no cookie", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.CookieFile = "/dev/zero" }},
		"wrong proof":       {true, "is not the one", reply("AUTHCHALLENGE", "250 AUTHCHALLENGE SERVERHASH="+strings.Repeat("0", 64)+" SERVERNONCE="+strings.Repeat("0", 64)+"\r\n")},
		"half a proof":      {true, "is not the one", reply("AUTHCHALLENGE", "250 AUTHCHALLENGE SERVERHASH=00\r\n")},
		"cookie not taken":  {true, "is not the one", reply("AUTHENTICATE", "515 Bad 192.0.2.1\r\n")},
		"a web server": {true, "does not speak", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) {
			b.Greeting = "HTTP/1.1 400 Bad Request\r\n\r\n"
		}},
		"a mail server": {true, "is no tor", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) {
			b.Greeting = "220 mail.example.net ESMTP\r\n"
		}},
		"binary":              {true, "does not speak", reply("PROTOCOLINFO", "\x16\x03\x01\x00\n\x00\n")},
		"a code that changes": {true, "does not speak", reply("PROTOCOLINFO", "250-a\r\n251 b\r\n")},
		"no command known":    {true, "is no tor", reply("PROTOCOLINFO", "510 Unrecognized\r\n")},
		"endless answer":      {true, "does not speak", reply("PROTOCOLINFO", endless)},
		"endless line":        {true, "does not speak", reply("PROTOCOLINFO", "250-"+strings.Repeat("x", 1<<20))},
		"endless data":        {true, "does not speak", reply("GETCONF", "250+x\r\n"+strings.Repeat("y\r\n", 200_000))},
		"endless events":      {true, "does not speak", reply("GETCONF", strings.Repeat("650 X\r\n", 100_000))},
		"no events":           {true, "is no tor", reply("SETEVENTS", "552 Unrecognized event\r\n")},
		"silent":              {false, "nothing answers", func(_ *testing.T, b *torcontroltest.Behaviour, _ *torcontrol.Config) { b.Silent = true }},
		"half an answer":      {false, "nothing answers", reply("PROTOCOLINFO", "250-PROTOCOLINFO 1\r\n250-AUTH")},
		"closes":              {false, "closed its control connection", reply("PROTOCOLINFO", "")},
		"closes at the login": {false, "closed its control connection", reply("AUTHENTICATE", "")},
		"closes later":        {false, "closed its control connection", reply("SETEVENTS", "")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tor := torcontroltest.New(t)
				cfg := torcontrol.Config{Socket: "/run/tor/control", Dial: tor.Dial}
				tor.Change(func(b *torcontroltest.Behaviour) { c.change(t, b, &cfg) })
				start := time.Now()
				_, err := open(t, cfg)
				var trouble *onions.Trouble
				if !errors.As(err, &trouble) || trouble.Refused != c.refused || !strings.Contains(trouble.Detail, c.detail) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "192.0.2.1") {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took > 30*time.Second {
					t.Errorf("it took %s", took)
				}
				tor.Kill()
				synctest.Wait()
			})
		})
	}
}

func TestOpen(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, b *torcontroltest.Behaviour, cfg *torcontrol.Config){
		"cookie": func(*testing.T, *torcontroltest.Behaviour, *torcontrol.Config) {},
		"a cookie elsewhere": func(_ *testing.T, b *torcontroltest.Behaviour, cfg *torcontrol.Config) {
			cfg.CookieFile, b.CookieFile = b.CookieFile, "/not/here"
		},
		"password": func(t *testing.T, b *torcontroltest.Behaviour, cfg *torcontrol.Config) {
			b.Methods, b.Password, cfg.PasswordFile = "SAFECOOKIE,HASHEDPASSWORD", `it's "secret"`, filepath.Join(t.TempDir(), "p")
			if err := os.WriteFile(cfg.PasswordFile, []byte(b.Password+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			tor := torcontroltest.New(t)
			cfg := torcontrol.Config{Socket: "/run/tor/control", Dial: tor.Dial}
			tor.Change(func(b *torcontroltest.Behaviour) { change(t, b, &cfg) })
			s, err := open(t, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if s.Version() != "0.4.9.11" || s.Warning() != "" {
				t.Errorf("%q %q", s.Version(), s.Warning())
			}
			seen, err := s.Look(t.Context())
			if err != nil || !seen.Network.Online() {
				t.Errorf("%+v %v", seen, err)
			}
		})
	}
}

func TestSocksPortIsWarnedOf(t *testing.T) {
	for ports, want := range map[string]string{"9050": "OnionTrafficOnly", "unix:/a OnionTrafficOnly,9050 IsolateSOCKSAuth": "OnionTrafficOnly", "": "OnionTrafficOnly", "0": "no SocksPort", "unix:/a IsolateSOCKSAuth OnionTrafficOnly": ""} {
		tor := torcontroltest.New(t)
		tor.Change(func(b *torcontroltest.Behaviour) { b.SocksPorts = strings.Split(ports, ",") })
		s, err := open(t, torcontrol.Config{Dial: tor.Dial})
		if err != nil {
			t.Fatal(err)
		}
		if w := s.Warning(); want == "" && w != "" || !strings.Contains(w, want) {
			t.Errorf("%q: %q", ports, w)
		}
	}
}

// What is wrong with the socket itself, on a real file system.
func TestSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "onion") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "control")
	try := func(want string) {
		t.Helper()
		_, err := open(t, torcontrol.Config{Socket: path})
		var trouble *onions.Trouble
		if !errors.As(err, &trouble) || trouble.Refused || !strings.Contains(trouble.Detail, want) || !strings.Contains(trouble.Detail, path) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	try("there is no control socket")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	try("is no socket")
	os.Remove(path)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	syscall.Close(fd)
	try("nobody answers")
	os.Remove(path)
	torcontroltest.New(t).Listen(path)
	if _, err := open(t, torcontrol.Config{Socket: path}); err != nil {
		t.Error(err)
	}
}

// Another service than the one that was asked for: it is no tor.
func TestOtherServiceID(t *testing.T) {
	tor := torcontroltest.New(t)
	tor.Change(func(b *torcontroltest.Behaviour) { b.ServiceID = strings.Repeat("a", 56) })
	s, err := open(t, torcontrol.Config{Dial: tor.Dial})
	if err != nil {
		t.Fatal(err)
	}
	var trouble *onions.Trouble
	if err := s.Add(t.Context(), service(t)); !errors.As(err, &trouble) || !trouble.Refused {
		t.Errorf("got %v", err)
	}
	<-s.Done()
}

func service(t *testing.T) onionsvc.Service {
	t.Helper()
	s, err := onionsvc.New(onionsvc.Request{Seed: bytes.Repeat([]byte{5}, 32), Socket: "/run/a.sock", Port: 4001})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
