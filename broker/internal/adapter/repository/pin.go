package repository

import (
	"context"
	"strings"

	"github.com/ipfs/go-cid"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/fault"
)

// linksOf reads one inner node for a collection.
func linksOf(text string, read func(string) ([]byte, error)) (app.Node, error) {
	c, err := cid.Decode(text)
	if err != nil {
		return app.Node{}, err
	}
	n := app.Node{Key: keyOf(c)}
	if c.Type() == cid.Raw {
		return n, nil
	}
	if _, ok := identity(c); ok {
		return n, nil
	}
	data, err := read(n.Key)
	if err != nil {
		return n, err
	}
	err = eachLink(c, data, func(child cid.Cid) error {
		switch {
		case child.Type() == cid.Raw:
			n.Leaves = append(n.Leaves, keyOf(child))
		default:
			n.Inner = append(n.Inner, canonical(child).String())
		}
		return nil
	})
	return n, err
}

func eachLink(c cid.Cid, data []byte, f func(cid.Cid) error) error {
	if c.Type() == cid.Raw {
		return nil
	}
	n, err := decode(c, data)
	if err != nil {
		return err
	}
	for _, l := range n.Links() {
		if err := checkCID(l.Cid); err != nil {
			return fault.InvalidArgument("CID_UNSUPPORTED", "%s has a link to %s, which cannot be used: %s", c, l.Cid, err)
		}
		if err := f(l.Cid); err != nil {
			return err
		}
	}
	return nil
}

// Pin keeps a DAG for an owner; it returns when all of it is on disk, durably. size is the file's, or that of a directory's
// own nodes.
func (s *Store) Pin(ctx context.Context, text string, pin PinFor, src Source) (size uint64, err error) {
	defer func() { s.metrics.done("pin", err) }()
	c, err := parseCID(text)
	if err != nil {
		return 0, err
	}
	p, err := s.newPin(c.String(), pin, s.cfg.Now())
	if err != nil {
		return 0, toFault(err, c)
	}
	leave, err := s.gets.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	release := s.blocks.Hold()
	defer release()
	f, stop, err := s.newFetcher(ctx, c, src)
	if err != nil {
		return 0, err
	}
	defer stop()
	all := &walk{f: f}
	if err := all.run(c); err != nil {
		return 0, toFault(f.cause(err), c)
	}
	root, err := f.node(c)
	if err != nil {
		return 0, toFault(f.cause(err), c)
	}
	kind, size, err := describe(root)
	if err != nil {
		return 0, malformed(c, err)
	}
	if kind == kindDirectory {
		size = all.inner
	}
	if err := s.blocks.Commit(app.Change{Pins: []content.Pin{p}, Durable: true}); err != nil {
		return 0, toFault(err, c)
	}
	s.metrics.pins.WithLabelValues("added").Inc()
	s.advertise(c, pin.Owner)
	return size, nil
}

// Unpin lifts pins, each named by its content and its owner. All of them, or none.
func (s *Store) Unpin(pins []content.Pin) (err error) {
	defer func() { s.metrics.done("unpin", err) }()
	change := app.Change{Unpins: make([]content.Pin, 0, len(pins))}
	for _, p := range pins {
		if err := content.CheckOwner(p.Owner); err != nil {
			return toFault(err, cid.Undef)
		}
		c, err := parseCID(p.CID)
		if err != nil {
			return err
		}
		change.Unpins = append(change.Unpins, content.Pin{CID: c.String(), Owner: p.Owner})
	}
	if err := s.blocks.Commit(change); err != nil {
		return toFault(err, cid.Undef)
	}
	s.metrics.pins.WithLabelValues("lifted").Add(float64(len(pins)))
	return nil
}

// Pins lists an owner's pins, or all, that have not ended; with a colon at the end of the owner those of all whose names begin so. A page may be
// shorter than limit before the end.
func (s *Store) Pins(owner, cursor string, limit int) (pins []content.Pin, next string, err error) {
	kind := ""
	if strings.HasSuffix(owner, ":") {
		owner, kind = "", owner
	}
	now, seen := s.cfg.Now(), 0
	for {
		all, next, err := s.blocks.Pins("", owner, cursor, limit-len(pins))
		if err != nil {
			return nil, "", toFault(err, cid.Undef)
		}
		for _, p := range all {
			if !p.Expired(now) && strings.HasPrefix(p.Owner, kind) {
				pins = append(pins, p)
			}
		}
		if seen += len(all); next == "" || len(pins) > 0 || seen >= maxSkipped {
			return pins, next, nil
		}
		cursor = next
	}
}

// maxSkipped is how many pins of others one page may pass over.
const maxSkipped = 10_000

// RootSize is how large content is, as its root says: a directory's with all that is in it. 0 where the root is not here.
func (s *Store) RootSize(text string) uint64 {
	c, err := parseCID(text)
	if err != nil {
		return 0
	}
	if data, ok := identity(c); ok {
		return uint64(len(data))
	}
	if c.Type() == cid.Raw {
		n, err := s.blocks.Size(keyOf(c))
		if err != nil {
			return 0
		}
		return uint64(max(n, 0))
	}
	data, err := s.blocks.Get(keyOf(c))
	if err != nil {
		return 0
	}
	n, err := decode(c, data)
	if err != nil {
		return 0
	}
	kind, size, err := describe(n)
	if err == nil && kind == kindDirectory {
		size, err = n.Size()
	}
	if err != nil {
		return 0
	}
	return size
}

// Stat is what is known of content.
type Stat struct {
	CID    string
	Kind   string
	Size   uint64
	Blocks uint64
	Local  bool
	Pins   []content.Pin
}

const maxStatPins = 100

// Stat looks at content; at most its root is fetched.
func (s *Store) Stat(ctx context.Context, text string, src Source) (Stat, error) {
	return s.StatPath(ctx, text, "", src)
}

// StatPath is Stat for what is in a directory.
func (s *Store) StatPath(ctx context.Context, text, path string, src Source) (st Stat, err error) {
	defer func() { s.metrics.done("stat", err) }()
	c, err := parseCID(text)
	if err != nil {
		return st, err
	}
	f, stop, err := s.newFetcher(ctx, c, src)
	if err != nil {
		return st, err
	}
	defer stop()
	c, root, err := f.resolve(path)
	if err != nil {
		return st, toFault(f.cause(err), f.root)
	}
	st.CID = c.String()
	if st.Kind, st.Size, err = describe(root); err != nil {
		return st, malformed(c, err)
	}
	look := &walk{look: true, f: &fetcher{s: s, src: Source{Local: true}, root: c, ctx: f.ctx, cancel: f.cancel}}
	if err := look.run(c); err != nil {
		return st, toFault(f.cause(err), c)
	}
	st.Blocks, st.Local = look.blocks, look.complete
	pins, _, err := s.blocks.Pins(st.CID, "", "", maxStatPins)
	if err != nil {
		return st, toFault(err, c)
	}
	now := s.cfg.Now()
	for _, p := range pins {
		if !p.Expired(now) {
			st.Pins = append(st.Pins, p)
		}
	}
	return st, nil
}
