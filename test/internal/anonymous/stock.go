package anonymous

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shallot-net/shallot/test/internal/hostile"
)

const stockHost = "shallot-test-stock"

// Stock is the control: a host as libp2p makes it, to which somebody has added a transport over Tor and nothing else. It meets a peer as nodes do, is left and comes back, watched and
// under strace as nodes are. What is found must be something, or nothing that is not found elsewhere means anything.
func Stock(ctx context.Context, dir string, tor hostile.Tor, address string) (leaks []Leak, packets []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	traces, seen := filepath.Join(dir, "stock-traces"), filepath.Join(dir, "stock-packets")
	if err := os.Mkdir(traces, 0o700); err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, "strace", "-f", "--seccomp-bpf", "-qq", "-e", traced, "-e", "signal=none", "-o", filepath.Join(traces, "stock.host.1"), self, stockHost, tor.Socks, address)
	if cmd.Err != nil {
		return nil, nil, cmd.Err
	}
	Watch(cmd, seen)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("the stock host: %w: %s", err, out)
	}
	leaks, _, err = JudgeAll(traces)
	if err == nil {
		packets, err = readPackets(seen)
	}
	return leaks, packets, err
}

// stock is the host.
func stock(socks, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DefaultTransports, libp2p.Transport(hostile.Tor{Socks: socks}.Transport("")), libp2p.WithDialTimeout(time.Minute))
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.Connect(ctx, *info); err != nil { // and hears where else the peer is
		return fmt.Errorf("the first time: %w", err)
	}
	if err := h.Network().ClosePeer(info.ID); err != nil {
		return err
	}
	// A second time it goes to all that it has heard. That it gets there is no matter: some are dialled before.
	ctx, cancel = context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := h.Network().DialPeer(network.WithForceDirectDial(ctx, "again"), info.ID); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the second time: %w", err)
	}
	return nil
}
