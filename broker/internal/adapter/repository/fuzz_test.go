package repository

import (
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

func FuzzParseCID(f *testing.F) {
	for _, s := range []string{"", "Qm", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
		"/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "z", "f01551220", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCID(s)
		if err != nil {
			return
		}
		again, err := parseCID(c.String())
		if err != nil || !again.Equals(c) || c.Version() != 1 {
			t.Fatalf("%q is %s, which is %s (%v)", s, c, again, err)
		}
		if err := checkCID(c); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzNode reads a block that a peer made as what its CID says it is.
func FuzzNode(f *testing.F) {
	n := merkledag.NodeWithData(unixfs.FolderPBData())
	f.Add([]byte{})
	f.Add(n.RawData())
	f.Add(unixfs.FilePBData([]byte("hello"), 5))
	f.Add([]byte("\x12\x2a\x0a\x24\x01\x55\x12\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x12\x00\x18\x05\x0a\x02\x08\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sum, err := mh.Sum(data, mh.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		c := cid.NewCidV1(cid.DagProtobuf, sum)
		node, err := decode(c, data)
		if err != nil {
			return
		}
		kind, _, err := describe(node)
		if err == nil && kind != kindFile && kind != kindDirectory {
			t.Fatalf("a dag-pb node is %q", kind)
		}
		if _, err := linksOf(c.String(), func(string) ([]byte, error) { return data, nil }); err != nil {
			_ = err.Error()
		}
	})
}
