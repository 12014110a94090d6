package torcontrol_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/shallot-net/shallot/broker/internal/adapter/torcontrol"
	"github.com/shallot-net/shallot/broker/internal/app/onions"
)

// FuzzControlPort has the other side say anything, whatever it is asked: there is an error and no crash, and nothing waits for more.
func FuzzControlPort(f *testing.F) {
	f.Add([]byte("250-PROTOCOLINFO 1\r\n250-AUTH METHODS=SAFECOOKIE COOKIEFILE=\"/x\"\r\n250-VERSION Tor=\"0.4.9.11\"\r\n250 OK\r\n"))
	f.Add([]byte("250-AUTH METHODS=HASHEDPASSWORD\r\n250-VERSION Tor=\"0.4.9.11\"\r\n250 OK\r\n250 OK\r\n250-HiddenServiceSingleHopMode=0\r\n250 SocksPort=0\r\n"))
	f.Add([]byte("250+x\r\n.\r\n650 HS_DESC\r\n250 OK\r\n"))
	f.Add([]byte("250-AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE=\"\\\r\n250 VERSION Tor=\"\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		dial := func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, ours) }()
			go func() {
				_, _ = ours.Write(said)
				ours.Close()
			}()
			return theirs, nil
		}
		_, err := open(t, torcontrol.Config{Socket: "/run/tor/control", Dial: dial})
		var trouble *onions.Trouble
		if !errors.As(err, &trouble) || trouble.Detail == "" {
			t.Errorf("%q: %v", said, err)
		}
	})
}
