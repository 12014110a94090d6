package run

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/logging"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

// rewriteAfter is when a file that could not be written is tried again.
const rewriteAfter = 5 * time.Second

// addressFile keeps a provider's addresses in a file, for nodes that join through it and are started by the same hand: they cannot be told an
// identity that is made only when the provider first runs.
type addressFile struct {
	path string
	log  *slog.Logger

	latest chan []byte // the newest content, where it is not what was written
	mu     sync.Mutex
	told   []byte
}

func newAddressFile(path string, log *slog.Logger) *addressFile {
	return &addressFile{path: path, log: log, latest: make(chan []byte, 1)}
}

// offer takes what the broker says of itself; it does not block.
func (f *addressFile) offer(s *brokerv1.SelfResponse) {
	if s.GetPeerId() == "" || len(s.GetAddresses()) == 0 {
		return // it is reachable nowhere yet
	}
	var b strings.Builder
	b.WriteString("# Addresses of this node, written by itself: a bootstrap_file for others.\n")
	for _, a := range s.GetAddresses() {
		b.WriteString(a + "/p2p/" + s.GetPeerId() + "\n")
	}
	text := []byte(b.String())
	f.mu.Lock()
	defer f.mu.Unlock()
	if bytes.Equal(text, f.told) {
		return
	}
	f.told = text
	select {
	case <-f.latest:
	default:
	}
	f.latest <- text
}

// run writes until ctx ends; written is called once, after the first time.
func (f *addressFile) run(ctx context.Context, written func()) error {
	for {
		var text []byte
		select {
		case text = <-f.latest:
		case <-ctx.Done():
			return nil
		}
		for {
			err := home.WriteFile(f.path, text, 0o600)
			if err == nil {
				break
			}
			f.log.Error("address_file cannot be written, and whoever joins through it has to wait: check its folder and the disk",
				logging.Err(fault.FailedPrecondition("ADDRESS_FILE", "cannot write it").Because(err)))
			again := time.NewTimer(rewriteAfter)
			select {
			case text = <-f.latest:
			case <-again.C:
			case <-ctx.Done():
			}
			again.Stop()
			if ctx.Err() != nil {
				return nil
			}
		}
		if written != nil {
			written()
			written = nil
		}
	}
}

// both tells ready whether two things hold.
type both struct {
	ready func(bool)

	mu            sync.Mutex
	first, second bool
	told          bool
}

func (b *both) set(which *bool, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*which = ok
	if now := b.first && b.second; now != b.told {
		b.told = now
		b.ready(now)
	}
}
