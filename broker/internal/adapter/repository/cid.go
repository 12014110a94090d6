package repository

import (
	"errors"

	"github.com/ipfs/boxo/verifcid"
	"github.com/ipfs/go-cid"

	"github.com/shallot-net/shallot/kit/fault"
)

const maxCIDText = 256

// parseCID reads a CID and gives it the form that pins and answers use: version 1. Version 0 names the same content.
func parseCID(s string) (cid.Cid, error) {
	if s == "" {
		return cid.Undef, fault.InvalidArgument("CID_INVALID", "no CID is given")
	}
	if len(s) > maxCIDText {
		return cid.Undef, fault.InvalidArgument("CID_INVALID", "the CID beginning with %q has %d characters and may have %d", s[:32], len(s), maxCIDText)
	}
	c, err := cid.Decode(s)
	if err != nil {
		return cid.Undef, fault.InvalidArgument("CID_INVALID", "%q is not a CID", s).Because(err)
	}
	if err := checkCID(c); err != nil {
		return cid.Undef, fault.InvalidArgument("CID_UNSUPPORTED", "the CID %s cannot be used: %s", s, err).Because(err)
	}
	return canonical(c), nil
}

func canonical(c cid.Cid) cid.Cid { return cid.NewCidV1(c.Type(), c.Hash()) }

var errCodec = errors.New("only files and directories are stored here: dag-pb and raw blocks")

// checkCID holds for what is stored and fetched here. Links inside of blocks come from the network, and are checked too.
func checkCID(c cid.Cid) error {
	if t := c.Type(); t != cid.DagProtobuf && t != cid.Raw {
		return errCodec
	}
	return verifcid.ValidateCid(verifcid.DefaultAllowlist, c)
}

func keyOf(c cid.Cid) string { return string(c.Hash()) }

var noCID = cid.Undef
