package main

import (
	"context"
	"log/slog"
	"strings"

	"github.com/shallot-net/shallot/broker/internal/adapter/libp2p"
	"github.com/shallot-net/shallot/broker/internal/adapter/onion"
	"github.com/shallot-net/shallot/broker/internal/adapter/onionclient"
	"github.com/shallot-net/shallot/broker/internal/adapter/repository"
	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/fence"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/rpc"
)

// maxStreams of one circuit: a peer makes one connection, and another while it does not know that the first one broke.
const maxStreams = 16

// path is that of tor's SOCKS socket.
func (o Onion) path() string { return strings.TrimPrefix(o.SOCKS, "unix:") }

// lanes are the hosts for content of a network that is made after the store, which fetches by them.
func lanes(network func() *libp2p.Network) *repository.Lanes {
	return &repository.Lanes{
		Way: func(ctx context.Context, persona, peer string, number int) (repository.Way, error) {
			w, err := network().Way(ctx, persona, peer, number)
			if err != nil { // not a nil pointer that is no nil interface
				return nil, err
			}
			return w, nil
		},
		Owner:  func(persona, lane string) string { return network().Owner(persona, lane) },
		Expect: func(persona string, peers []string) { network().Expect(persona, peers) },
	}
}

// enclosed tells whether this process has no way out but Unix sockets. One that has is an error, unless its user knows: a mistake in a library would be seen by the world.
func enclosed(unfenced bool, log *slog.Logger) (bool, error) {
	f, err := fence.Observe()
	if err == nil && f.Enclosed {
		return true, nil
	}
	if unfenced {
		log.Warn("unfenced: nothing but this program itself keeps its traffic inside Tor")
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return false, fault.FailedPrecondition("NOT_FENCED", "this process can reach a network beside tor (%s): start it without one (shallot up does; PrivateNetwork=yes of systemd, network_mode: none of a container), or with --unfenced",
		strings.Join(f.Interfaces, ", "))
}

// connect reaches shallot-onion, now or when it comes.
func (o Onion) connect(h home.Home, unfenced bool, networkKey []byte, log *slog.Logger) (*onionclient.Client, error) {
	fenced, err := enclosed(unfenced, log)
	if err != nil {
		return nil, err
	}
	endpoint := o.Endpoint
	if endpoint == "" {
		endpoint = h.Endpoint("onion")
	}
	conn, err := rpc.Dial(endpoint, rpc.ClientConfig{Service: "shallot-onion"})
	if err != nil {
		return nil, err
	}
	return onionclient.New(conn, onionclient.Config{
		Port: onion.Port, MaxStreams: maxStreams, Enclosed: fenced, NetworkKey: networkKey, Log: log,
		Probe: func(ctx context.Context, serviceID string) error { return onion.Probe(ctx, o.path(), serviceID) },
	})
}
