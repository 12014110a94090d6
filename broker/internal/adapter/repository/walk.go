package repository

import (
	"errors"
	"slices"

	"github.com/ipfs/go-cid"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/fault"
)

// walk visits every node of a DAG once. It fetches what is missing and keeps it from being collected, or only looks at what is here.
type walk struct {
	f    *fetcher
	look bool

	blocks   uint64 // leaves are counted as often as they are linked to
	inner    uint64 // bytes of nodes with links
	complete bool   // all of it is here

	seen map[string]struct{} // nodes with links; without it a small DAG could be made to take for ever
	todo []cid.Cid
}

func (w *walk) run(root cid.Cid) error {
	w.complete = true
	if root.Type() == cid.Raw {
		w.blocks = 1
		return w.leaves([]cid.Cid{root})
	}
	w.seen = map[string]struct{}{keyOf(root): {}}
	w.todo = []cid.Cid{root}
	for len(w.todo) > 0 {
		if err := w.f.ctx.Err(); err != nil {
			return w.f.cause(err)
		}
		n := min(len(w.todo), w.f.s.profile.window)
		next := slices.Clone(w.todo[len(w.todo)-n:])
		w.todo = w.todo[:len(w.todo)-n]
		if err := w.bring(next); err != nil {
			return err
		}
		for _, c := range next {
			if err := w.node(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// bring fetches together what is missing of some nodes: a directory of small files would take a round trip for each otherwise.
func (w *walk) bring(nodes []cid.Cid) error {
	if w.look || w.f.src.Local || len(nodes) < 2 {
		return nil
	}
	var absent []cid.Cid
	for _, c := range nodes {
		if err := checkCID(c); err != nil {
			continue // whoever visits it says so
		}
		if _, ok := identity(c); ok {
			continue
		}
		switch _, err := w.f.s.blocks.Size(keyOf(c)); {
		case errors.Is(err, content.ErrNotFound):
			absent = append(absent, c)
		case err != nil:
			return err
		}
	}
	return w.f.ensure(absent)
}

// node visits one node and its leaves.
func (w *walk) node(c cid.Cid) error {
	w.blocks++
	data, err := w.f.bytes(c)
	if w.look && errors.Is(err, content.ErrNotFound) {
		w.complete = false
		return nil
	}
	if err != nil {
		return err
	}
	w.inner += uint64(len(data))
	leaves := []cid.Cid{c} // it has been read, and must not be collected either
	err = eachLink(c, data, func(child cid.Cid) error {
		if child.Type() == cid.Raw {
			w.blocks++
			leaves = append(leaves, child)
			return nil
		}
		if _, ok := w.seen[keyOf(child)]; ok {
			return nil
		}
		if len(w.seen) >= app.MaxInner {
			return fault.ResourceExhausted(ReasonTooLarge, "%s has more than %d nodes with links", w.f.root, app.MaxInner)
		}
		w.seen[keyOf(child)] = struct{}{}
		w.todo = append(w.todo, child)
		return nil
	})
	if err != nil {
		return err
	}
	return w.leaves(leaves)
}

// leaves makes sure that blocks are there, and that no collection takes them meanwhile; or looks whether they are.
func (w *walk) leaves(cids []cid.Cid) error {
	keys := make([]string, 0, len(cids))
	byKey := make(map[string]cid.Cid, len(cids))
	for _, c := range cids {
		if _, ok := identity(c); ok {
			continue
		}
		keys = append(keys, keyOf(c))
		byKey[keyOf(c)] = c
	}
	if w.look {
		for _, key := range keys {
			_, err := w.f.s.blocks.Size(key)
			if errors.Is(err, content.ErrNotFound) {
				w.complete = false
				return nil
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	absent, err := w.f.s.blocks.Touch(keys)
	if err != nil || len(absent) == 0 {
		return err
	}
	fetch := make([]cid.Cid, 0, len(absent))
	for _, key := range absent {
		fetch = append(fetch, byKey[key])
	}
	return w.f.ensure(fetch)
}
