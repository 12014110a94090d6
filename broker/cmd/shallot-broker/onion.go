package main

import (
	"context"
	"log/slog"
	"strings"

	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/broker/internal/adapter/onionclient"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
)

// maxStreams of one circuit: a peer makes one connection, and another while it does not know that the first one broke.
const maxStreams = 16

// path is that of tor's SOCKS socket.
func (o Onion) path() string { return strings.TrimPrefix(o.SOCKS, "unix:") }

// connect reaches shallot-onion, now or when it comes.
func (o Onion) connect(h home.Home, unfenced bool, log *slog.Logger) (*onionclient.Client, error) {
	endpoint := o.Endpoint
	if endpoint == "" {
		endpoint = h.Endpoint("onion")
	}
	conn, err := rpc.Dial(endpoint, rpc.ClientConfig{Service: "shallot-onion"})
	if err != nil {
		return nil, err
	}
	return onionclient.New(conn, onionclient.Config{
		Port: onion.Port, MaxStreams: maxStreams, Log: log,
		Probe: func(ctx context.Context, serviceID string) error { return onion.Probe(ctx, o.path(), serviceID) },
	}), nil
}
