package content

import (
	"context"
	"errors"
	"fmt"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
)

// VerifierConfig is what a Verifier works with. Repair may be nil.
type VerifierConfig struct {
	Store Store
	Links Links
	// NameOf is the CID of a block of which only the key is known.
	NameOf func(key string) string
	// Repair brings blocks, by CID, from wherever they are to be had, and stores them. It returns those that it brought; an error means
	// that others need not be tried.
	Repair func(ctx context.Context, cids []string) (brought map[string]bool, err error)
}

// Verifier reads everything that is stored and looks whether it is what it should be.
type Verifier struct{ cfg VerifierConfig }

// NewVerifier makes one.
func NewVerifier(cfg VerifierConfig) *Verifier { return &Verifier{cfg} }

// Checked counts what a verification has done until now.
type Checked struct {
	Blocks, Bytes int64
	Bad, Repaired int64
}

// Finding is one block that is not as it should be.
type Finding struct {
	CID      string
	Damaged  bool // its bytes on disk are others; otherwise they are not there, though something pinned needs them
	Repaired bool
}

// Reporter hears of a verification while it goes on. An error ends it.
type Reporter interface {
	Progress(Checked) error
	Found(Finding) error
}

const (
	repairBatch = 16
	maxBad      = 10_000
)

// ErrTooMuchIsBad ends a verification: there is no use in going on.
var ErrTooMuchIsBad = fmt.Errorf("more than %d blocks are damaged or missing", maxBad)

type verification struct {
	*Verifier
	ctx    context.Context
	to     Reporter
	done   Checked
	bad    []string            // damaged blocks, by key
	known  map[string]struct{} // keys of all that was found
	lost   map[string]struct{} // keys of blocks whose bytes are not where the index says
	gaveUp bool                // what is asked for does not come
}

// Verify reads every block, and then walks what is pinned to see that all of it is there. What is damaged or missing is repaired
// where that is possible, and reported either way.
func (v *Verifier) Verify(ctx context.Context, to Reporter) (Checked, error) {
	r := &verification{Verifier: v, ctx: ctx, to: to, known: make(map[string]struct{}), lost: make(map[string]struct{})}
	if err := v.cfg.Store.Each(ctx, r.block); err != nil {
		return r.done, err
	}
	for at := 0; at < len(r.bad); at += repairBatch {
		batch := make([]Finding, 0, repairBatch)
		for _, key := range r.bad[at:min(at+repairBatch, len(r.bad))] {
			batch = append(batch, Finding{CID: v.cfg.NameOf(key), Damaged: true})
		}
		if err := r.settle(batch); err != nil {
			return r.done, err
		}
	}
	return r.done, r.pins()
}

func (r *verification) block(key string, size int) error {
	_, err := r.cfg.Store.Get(key)
	var corrupt *content.CorruptError
	switch {
	case errors.As(err, &corrupt):
		if len(r.bad) == maxBad {
			return ErrTooMuchIsBad
		}
		r.bad, r.known[key] = append(r.bad, key), struct{}{}
		r.done.Bad++
	case errors.Is(err, content.ErrNotFound): // collected meanwhile, or never durable: only where a pin needs it something is missing
		if len(r.lost) == maxBad {
			return ErrTooMuchIsBad
		}
		r.lost[key] = struct{}{}
	case err != nil:
		return err
	}
	r.done.Blocks, r.done.Bytes = r.done.Blocks+1, r.done.Bytes+int64(size)
	return r.to.Progress(r.done)
}

// settle repairs what was found, and reports it.
func (r *verification) settle(found []Finding) error {
	if r.cfg.Repair != nil && !r.gaveUp {
		cids := make([]string, len(found))
		for i, f := range found {
			cids[i] = f.CID
		}
		brought, err := r.cfg.Repair(r.ctx, cids)
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		r.gaveUp = err != nil
		for i := range found {
			if found[i].Repaired = brought[found[i].CID]; found[i].Repaired {
				r.done.Repaired++
			}
		}
	}
	for _, f := range found {
		if err := r.to.Found(f); err != nil {
			return err
		}
	}
	return r.to.Progress(r.done)
}

// pins walks everything that is pinned.
func (r *verification) pins() error {
	seen := make(map[string]struct{})
	for cursor := ""; ; {
		pins, next, err := r.cfg.Store.Pins("", "", cursor, pinPage)
		if err != nil {
			return err
		}
		for _, p := range pins {
			if err := r.dag(p.CID, seen); err != nil {
				return err
			}
		}
		if cursor = next; next == "" {
			return nil
		}
	}
}

// dag walks one pinned DAG. seen holds the nodes with links, over all DAGs: what two share is looked at once.
func (r *verification) dag(root string, seen map[string]struct{}) error {
	for todo := []string{root}; len(todo) > 0; {
		if err := r.ctx.Err(); err != nil {
			return context.Cause(r.ctx)
		}
		cid := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, ok := seen[cid]; ok {
			continue
		}
		if len(seen) == MaxInner*4 { // memory is bounded; beyond it, shared parts are walked again
			clear(seen)
		}
		seen[cid] = struct{}{}
		n, err := r.node(cid)
		if err != nil {
			return err
		}
		if err := r.leaves(n.Leaves); err != nil {
			return err
		}
		todo = append(todo, n.Inner...)
	}
	return nil
}

// node reads one node, after a repair if need be. What stays unreadable has no children that could be known.
func (r *verification) node(cid string) (Node, error) {
	n, err := r.cfg.Links(cid, r.cfg.Store.Get)
	if !unusable(err) {
		return n, err
	}
	if err := r.missing([]Finding{{CID: cid, Damaged: !errors.Is(err, content.ErrNotFound)}}, []string{n.Key}); err != nil {
		return Node{}, err
	}
	n, err = r.cfg.Links(cid, r.cfg.Store.Get)
	if unusable(err) {
		return Node{}, nil
	}
	return n, err
}

func unusable(err error) bool {
	var corrupt *content.CorruptError
	return errors.Is(err, content.ErrNotFound) || errors.As(err, &corrupt)
}

func (r *verification) leaves(keys []string) error {
	var found []Finding
	var names []string
	for _, key := range keys {
		_, err := r.cfg.Store.Size(key)
		_, lost := r.lost[key]
		if err == nil && !lost {
			continue // its bytes were read with all others
		}
		if err != nil && !errors.Is(err, content.ErrNotFound) {
			return err
		}
		found, names = append(found, Finding{CID: r.cfg.NameOf(key)}), append(names, key)
		if len(found) == repairBatch {
			if err := r.missing(found, names); err != nil {
				return err
			}
			found, names = nil, nil
		}
	}
	return r.missing(found, names)
}

// missing settles what no finding was made of yet.
func (r *verification) missing(found []Finding, keys []string) error {
	fresh := found[:0]
	for i, f := range found {
		if _, ok := r.known[keys[i]]; ok {
			continue
		}
		if len(r.known) == maxBad {
			return ErrTooMuchIsBad
		}
		r.known[keys[i]] = struct{}{}
		r.done.Bad++
		fresh = append(fresh, f)
	}
	if len(fresh) == 0 {
		return nil
	}
	return r.settle(fresh)
}
