package run

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

const somebody = "12D3KooWGPRKSYkQtsAcnwUkCujXPGrYnyTxyWFzXxrsRvAMhKCf"

func TestAddressesAreWhereOthersLookForThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "addresses")
	f := newAddressFile(path, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	written, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- f.run(ctx, func() { close(written) }) }()
	f.offer(&brokerv1.SelfResponse{PeerId: somebody}) // reachable nowhere
	f.offer(&brokerv1.SelfResponse{PeerId: somebody, Addresses: []string{"/ip4/192.0.2.1/tcp/4001", "/dns4/broker/tcp/4001"}})
	<-written
	got, err := readBootstrap(path)
	if want := []string{"/ip4/192.0.2.1/tcp/4001/p2p/" + somebody, "/dns4/broker/tcp/4001/p2p/" + somebody}; err != nil || !slices.Equal(got, want) {
		t.Errorf("others read %v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	f.offer(&brokerv1.SelfResponse{PeerId: somebody, Addresses: []string{"/ip4/192.0.2.2/tcp/4001"}})
	eventually(t, "it follows a move", func() bool {
		got, _ := readBootstrap(path)
		return slices.Equal(got, []string{"/ip4/192.0.2.2/tcp/4001/p2p/" + somebody})
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAddressesWaitForTheirFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "later")
		path := filepath.Join(dir, "addresses")
		f := newAddressFile(path, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		written, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- f.run(ctx, func() { close(written) }) }()
		f.offer(&brokerv1.SelfResponse{PeerId: somebody, Addresses: []string{"/ip4/192.0.2.1/tcp/4001"}})
		synctest.Wait() // it has tried, and waits for its next try
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		<-written
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestReadyIsBoth(t *testing.T) {
	var told []bool
	b := &both{ready: func(ok bool) { told = append(told, ok) }}
	b.set(&b.first, true)
	b.set(&b.second, true)
	b.set(&b.second, true)
	b.set(&b.first, false)
	b.set(&b.first, true)
	if !slices.Equal(told, []bool{true, false, true}) {
		t.Errorf("told %v", told)
	}
}
