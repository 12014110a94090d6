package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// Listen opens the HTTP address. Port 0 means a free one that is kept from then on, so that a URL survives a restart; when somebody
// else has taken it meanwhile, another one is chosen.
func Listen(ctx context.Context, addr string, h home.Home) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fault.InvalidArgument("HTTP_ADDRESS", "%q is no host:port", addr).Because(err)
	}
	kept := filepath.Join(h.State("gateway"), "port")
	var lc net.ListenConfig
	if port == "0" {
		if b, err := os.ReadFile(kept); err == nil {
			if l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strings.TrimSpace(string(b)))); err == nil {
				return l, nil
			}
		}
	}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fault.FailedPrecondition("PORT_IN_USE", "cannot listen on %s: choose another address with --http, or end what uses it", addr).Because(err)
	}
	if port == "0" {
		_, chosen, _ := net.SplitHostPort(l.Addr().String())
		if err := home.WriteFile(kept, []byte(chosen+"\n"), 0o600); err != nil {
			l.Close()
			return nil, fault.FailedPrecondition("HOME_UNUSABLE", "cannot write %s", kept).Because(err)
		}
	}
	return l, nil
}

// announcement is what a home says of its gateway.
type announcement struct {
	URL       string `json:"url"`
	TokenFile string `json:"token_file"`
}

func announcementFile(h home.Home) string {
	return filepath.Join(filepath.Dir(h.Socket("gateway")), "gateway.json")
}

// Announce says in the home where the gateway is, for the command and the tests.
func Announce(h home.Home, addr, tokenFile string) error {
	b, err := json.Marshal(announcement{"http://" + addr, tokenFile})
	if err != nil {
		return err
	}
	return home.WriteFile(announcementFile(h), append(b, '\n'), 0o600)
}

// announced is what the gateway of a home has said there.
func announced(h home.Home) (a announcement, err error) {
	err = readJSON(announcementFile(h), maxAnnounced, &a)
	return a, err
}

// stopWithin is how long requests may take to end once the gateway stops.
const stopWithin = 2 * time.Second

// Serve answers requests until the context ends.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return base },
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		end() // watches and followed logs have no end of their own
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if s.Shutdown(grace) != nil {
			_ = s.Close()
		}
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fault.Unavailable("HTTP", "the HTTP server ended").Because(err)
	}
	<-stopped
	return nil
}
