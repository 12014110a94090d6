package rpc

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
)

// endpoint is "unix:/path", "tcp:host:port" or "host:port", taken apart.
type endpoint struct {
	network, address string
}

// parseEndpoint checks what can be checked before anything is opened. secured says that what goes over TCP is; without it only Unix sockets are taken.
func parseEndpoint(s string, secured bool) (endpoint, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return endpoint{}, fault.InvalidArgument("ENDPOINT_INVALID", "endpoint %q has no path: it must be unix:/path or host:port", s)
		}
		if len(path) > home.MaxSocketPath {
			return endpoint{}, fault.InvalidArgument("ENDPOINT_INVALID", "the socket path %s has %d bytes and may have %d: use a shorter directory", path, len(path), home.MaxSocketPath)
		}
		return endpoint{"unix", path}, nil
	}
	address := strings.TrimPrefix(s, "tcp:")
	_, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return endpoint{}, fault.InvalidArgument("ENDPOINT_INVALID", "endpoint %q is neither unix:/path nor host:port", s)
	}
	if !secured {
		return endpoint{}, fault.InvalidArgument("ENDPOINT_INSECURE", "endpoint %q is no Unix socket, and elsewhere a node's services speak mutual TLS alone: say with tls.dir (the command: --cert) where ca.crt, tls.crt and tls.key are, or use unix:/path", s)
	}
	return endpoint{"tcp", address}, nil
}

// parsePlain is parseEndpoint for what is no service of a node: an executor may be called over plain TCP on loopback.
func parsePlain(s string) (endpoint, error) {
	e, err := parseEndpoint(s, true)
	if err != nil || e.network != "tcp" {
		return e, err
	}
	if host, _, _ := net.SplitHostPort(e.address); !isLoopback(host) {
		return endpoint{}, fault.InvalidArgument("ENDPOINT_INSECURE", "endpoint %q is not on loopback, and plain TCP is dialled there alone: use 127.0.0.1 or a Unix socket", s)
	}
	return e, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// listen opens the endpoint. A socket file that nobody answers on is what a killed process left, and is removed;
// one that answers is in use.
func (e endpoint) listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, e.network, e.address)
	if err != nil && e.network == "unix" && errors.Is(err, syscall.EADDRINUSE) {
		if err = e.removeStale(ctx); err != nil {
			return nil, err
		}
		l, err = lc.Listen(ctx, e.network, e.address)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, e.inUse()
	case err != nil:
		return nil, fault.FailedPrecondition("LISTEN_FAILED", "cannot listen on %s", e.address).Because(err)
	}
	if e.network == "unix" {
		if err := os.Chmod(e.address, 0o600); err != nil {
			_ = l.Close()
			return nil, fault.FailedPrecondition("LISTEN_FAILED", "cannot protect the socket %s", e.address).Because(err)
		}
	}
	return l, nil
}

func (e endpoint) inUse() error {
	return fault.FailedPrecondition("ENDPOINT_IN_USE", "%s is in use by another process: stop it or listen elsewhere", e.address).With("endpoint", e.address)
}

func (e endpoint) removeStale(ctx context.Context) error {
	info, err := os.Lstat(e.address)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return fault.FailedPrecondition("LISTEN_FAILED", "%s exists and is no socket: move it away", e.address).Because(err)
	}
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "unix", e.address)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return e.inUse()
	}
	if err := os.Remove(e.address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.FailedPrecondition("LISTEN_FAILED", "cannot remove the dead socket %s", e.address).Because(err)
	}
	return nil
}

// target is the endpoint as grpc.NewClient takes it.
func (e endpoint) target() string {
	if e.network == "unix" {
		return "unix:" + e.address
	}
	host, _, _ := net.SplitHostPort(e.address)
	if _, err := netip.ParseAddr(host); err == nil {
		return "passthrough:///" + e.address
	}
	return "dns:///" + e.address
}
