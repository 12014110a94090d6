package clitest

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

func fakeCID(data []byte) string { return fmt.Sprintf("bafkfake%x", sha256.Sum256(data))[:40] }

// PutContent implements NodeService.
func (n *Node) PutContent(s grpc.ClientStreamingServer[nodev1.PutContentRequest, nodev1.PutContentResponse]) error {
	var data, whole []byte
	var entries []*brokerv1.DirectoryEntry
	directory, size := false, 0
	keep := func() string {
		cid := fakeCID(data)
		n.change(func() { n.content[cid] = data })
		if len(entries) > 0 && entries[len(entries)-1].GetKind() == "file" {
			entries[len(entries)-1].Cid, entries[len(entries)-1].Size = cid, uint64(len(data))
		}
		size += len(data)
		data = nil
		return cid
	}
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		directory = directory || m.GetDirectory()
		if e := m.GetEntry(); e != nil {
			keep()
			kind := "file"
			if e.GetDirectory() {
				kind = "directory"
			}
			whole = append(whole, e.GetPath()...)
			entries = append(entries, &brokerv1.DirectoryEntry{Path: e.GetPath(), Kind: kind})
		}
		data, whole = append(data, m.GetData()...), append(whole, m.GetData()...)
	}
	cid := keep()
	if directory {
		cid = fakeCID(whole)
		n.AddTree(cid, entries...)
	}
	n.Pin(&brokerv1.Pin{Cid: cid, Owner: "user"})
	return s.SendAndClose(&nodev1.PutContentResponse{Cid: cid, Size: uint64(size)})
}

// AddTree puts a directory there, with the entries that are given and those of the directories that their paths name.
func (n *Node) AddTree(cid string, entries ...*brokerv1.DirectoryEntry) {
	there := map[string]bool{}
	for _, e := range entries {
		there[e.GetPath()] = true
	}
	for _, e := range entries {
		for dir := path.Dir(e.GetPath()); dir != "." && dir != "/" && dir != ".." && !there[dir]; dir = path.Dir(dir) {
			there[dir] = true
			entries = append(entries, &brokerv1.DirectoryEntry{Path: dir, Kind: "directory"})
		}
	}
	slices.SortFunc(entries, func(a, b *brokerv1.DirectoryEntry) int { return cmp.Compare(a.GetPath(), b.GetPath()) })
	n.change(func() { n.trees[cid] = entries })
}

// AddContent puts a file there and returns its CID.
func (n *Node) AddContent(data []byte) string {
	n.change(func() { n.content[fakeCID(data)] = data })
	return fakeCID(data)
}

func (n *Node) inTree(cid, path string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.trees[cid] != nil && path == "" {
		return "", fault.FailedPrecondition("CONTENT_IS_DIRECTORY", "%s is a directory: name a file in it", cid)
	}
	if path == "" {
		return cid, nil
	}
	for _, e := range n.trees[cid] {
		if e.GetPath() == path {
			return e.GetCid(), nil
		}
	}
	return "", fault.NotFound("PATH_NOT_FOUND", "there is no %q in %s", path, cid)
}

// ListContent implements NodeService.
func (n *Node) ListContent(r *nodev1.ListContentRequest, s grpc.ServerStreamingServer[nodev1.ListContentResponse]) error {
	n.mu.Lock()
	all, ok := n.trees[r.GetCid()]
	n.mu.Unlock()
	if !ok {
		return fault.NotFound("CONTENT_NOT_FOUND", "nobody has content %q", r.GetCid())
	}
	broken, sent := n.broken("ListContent"), 0
	for _, e := range all {
		p := e.GetPath()
		if under := r.GetPath(); under != "" {
			var below bool
			if p, below = strings.CutPrefix(p, under+"/"); !below {
				continue
			}
		}
		if strings.Contains(p, "/") && !r.GetRecursive() {
			continue
		}
		if sent++; broken && sent > 1 {
			return errGone
		}
		if err := s.Send(&nodev1.ListContentResponse{Entries: []*brokerv1.DirectoryEntry{{Path: p, Kind: e.GetKind(), Size: e.GetSize(), Cid: e.GetCid()}}}); err != nil {
			return err
		}
	}
	return nil
}
