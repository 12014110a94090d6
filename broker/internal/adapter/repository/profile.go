package repository

import (
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/client"
)

// profile is what a mode decides. Another mode is another value of it.
type profile struct {
	// byName: blocks are served to those only to whom they were granted, and asked for at those only who are named. Else to and at everybody.
	byName bool

	connect time.Duration // how long a named peer is dialled
	stall   time.Duration // how long the next block may take
	// first is how long content that nobody is named for is waited for: all who are connected have been asked at once, and answer within
	// a round trip; a second later those are looked for who have advertised it. Less than the ten seconds that callers give a call, so that they hear "not found" and not "too late".
	first time.Duration

	replace       int           // a block of up to so many bytes is the answer to whether it is here: a round trip less
	search        time.Duration // after which a request asks who has its blocks, should it want any by then
	again         time.Duration // how often it asks again as long as it waits
	retry         time.Duration // where nobody else would be asked: how long no block may come until all is asked anew
	dontHave      time.Duration // without an answer a peer counts as not having a block, before anything is known of its round trips
	dontHaveLeast time.Duration // the same, however fast it was before
	dontHaveMost  time.Duration // and however slow
	chunk         int           // bytes of a leaf of what is put here
	message       int           // bytes after which no further block is put into a message
	window        int           // blocks of a DAG that are asked for at once
	senders       int           // messages that are being sent at once, to all peers: each takes as long as its peer's connection does
	ping          bool          // measure round trips, by a protocol that not every host speaks
}

// openProfile asks everybody and serves everybody; the numbers are the library's.
func openProfile() profile {
	return profile{
		connect: 15 * time.Second, stall: 30 * time.Second, first: 7 * time.Second,
		replace: 1 << 10, search: time.Second, again: time.Minute,
		dontHave: 5 * time.Second, dontHaveLeast: 50 * time.Millisecond, dontHaveMost: 7 * time.Second,
		chunk: chunkSize, message: 1 << 20, window: window, senders: 4,
		ping: true,
	}
}

// anonymousProfile is for round trips of 0.7 to 3 s, and dials of three to ten of them. Who has content is known, so a request hears of it at once, and hears of it
// again often: that costs nothing, brings back a peer whose circuit broke, and catches a request that was slower than its search.
func anonymousProfile() profile {
	return profile{
		byName:  true,
		connect: 2 * time.Minute, stall: 90 * time.Second, first: 90 * time.Second,
		replace: 64 << 10, search: time.Millisecond, again: 250 * time.Millisecond, retry: 25 * time.Second,
		dontHave: 30 * time.Second, dontHaveLeast: 30 * time.Second, dontHaveMost: 2 * time.Minute, // a few blocks may be before it in a slow circuit
		// Ways side by side share the leaves: small ones leave none of them waiting for another at the end, and one in a message does not have the next one wait for it.
		chunk: smallChunk, message: 256 << 10, window: 4 * window, senders: 32,
		ping: false,
	}
}

// options are those of bitswap.
func (p *profile) options() []bitswap.Option {
	timeouts := client.DefaultDontHaveTimeoutConfig()
	timeouts.DontHaveTimeout, timeouts.MinTimeout, timeouts.MaxTimeout = p.dontHave, p.dontHaveLeast, p.dontHaveMost
	opts := []bitswap.Option{
		// The defaults are made for machines that do nothing else: 128 goroutines that read the disk, and so on.
		bitswap.EngineBlockstoreWorkerCount(8), bitswap.TaskWorkerCount(p.senders), bitswap.EngineTaskWorkerCount(4),
		// With leaves of 1 MiB the default of 1 MiB in flight per peer would stop after each leaf.
		bitswap.MaxOutstandingBytesPerPeer(8 << 20), bitswap.WithTargetMessageSize(p.message),
		bitswap.MaxCidSize(128), bitswap.MaxQueuedWantlistEntriesPerPeer(maxWantlist),
		bitswap.WithoutDuplicatedBlockStats(),
		bitswap.WithWantHaveReplaceSize(p.replace), bitswap.ProviderSearchDelay(p.search), bitswap.RebroadcastDelay(p.again),
		bitswap.WithClientOption(client.WithDontHaveTimeoutConfig(timeouts)),
	}
	if p.byName {
		opts = append(opts,
			bitswap.WithClientOption(client.BroadcastControlEnable(true)),           // a want goes to all who are connected
			bitswap.WithClientOption(client.BroadcastControlMaxPeers(0)),            // to any number of them
			bitswap.WithClientOption(client.BroadcastControlLocalPeers(true)),       // those on the local network always among them: and who has no address counts as that
			bitswap.WithClientOption(client.BroadcastControlPeeredPeers(true)),      // and those that the user peers with
			bitswap.WithClientOption(client.WithDefaultProviderQueryManager(false)), // takes one request's providers for another's that wants the same block
		)
	}
	return opts
}

// maxWantlist is how many wants of one peer are remembered.
const maxWantlist = 1024
