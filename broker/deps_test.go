package broker

// Placeholder imports: they keep the pinned versions in go.mod until the code that uses them is there.
import (
	_ "github.com/ipfs/boxo/bitswap"
	_ "github.com/ipfs/boxo/blockservice"
	_ "github.com/ipfs/boxo/blockstore"
	_ "github.com/ipfs/boxo/ipld/merkledag"
	_ "github.com/ipfs/boxo/ipld/unixfs/importer"
	_ "github.com/ipfs/boxo/ipld/unixfs/io"
	_ "github.com/libp2p/go-libp2p"
	_ "github.com/libp2p/go-libp2p-pubsub"
	_ "github.com/shallot-net/shallot/kit/fault"
	_ "github.com/shallot-net/shallot/kit/rpc"
	_ "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)
