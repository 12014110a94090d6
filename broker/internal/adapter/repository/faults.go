package repository

import (
	"context"
	"errors"

	"github.com/ipfs/go-cid"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/domain/content"
	"github.com/shallot-net/shallot/kit/fault"
)

// Reasons that callers branch on.
const (
	ReasonNotFound     = "CONTENT_NOT_FOUND"
	ReasonUnreachable  = "CONTENT_UNREACHABLE" // nobody who was asked gave it in time
	ReasonCorrupted    = "CONTENT_CORRUPTED"
	ReasonMalformed    = "CONTENT_MALFORMED"
	ReasonTooLarge     = "CONTENT_TOO_LARGE"
	ReasonIsDirectory  = "CONTENT_IS_DIRECTORY"
	ReasonDiskFull     = "DISK_FULL"
	ReasonQuota        = "CONTENT_QUOTA_EXCEEDED"
	ReasonStoreDamaged = "CONTENT_STORE_DAMAGED"
	ReasonPersona      = "PERSONA_UNKNOWN"
)

// toFault says what an error means to a caller. c is the content that was asked for, if any.
func toFault(err error, c cid.Cid) error {
	if err == nil {
		return nil
	}
	var (
		known   *fault.Error
		invalid *content.InvalidError
		corrupt *content.CorruptError
		full    *content.FullError
		quota   *content.QuotaError
		torn    *content.TornError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &invalid):
		return fault.Wrap(err, codes.InvalidArgument, "INVALID_ARGUMENT", "%s", invalid.Error())
	case errors.As(err, &corrupt):
		// A raw block's CID: the codec of the link to it is not known where it is read.
		bad := cid.NewCidV1(cid.Raw, []byte(corrupt.Key)).String()
		if c.Defined() && keyOf(c) == corrupt.Key {
			bad = c.String()
		}
		return fault.Wrap(err, codes.DataLoss, ReasonCorrupted,
			"the block %s is corrupted in %s: put the content again, or fetch it from a peer that has it", bad, corrupt.Path).With("cid", bad)
	case errors.As(err, &full):
		return fault.Wrap(err, codes.ResourceExhausted, ReasonDiskFull,
			"the disk of %s is full: free some space, or unpin content", full.Path).With("path", full.Path)
	case errors.As(err, &quota):
		return fault.Wrap(err, codes.ResourceExhausted, ReasonQuota,
			"the content store has %s of the %s that it may have: unpin content and then run shallot content gc, or raise the broker's content.quota",
			content.SizeText(quota.Used), content.SizeText(quota.Quota))
	case errors.As(err, &torn):
		return fault.Wrap(err, codes.DataLoss, ReasonStoreDamaged,
			"the content store %s is damaged: restore it from a copy, or move it away to begin with an empty one", torn.Path).With("path", torn.Path)
	case errors.Is(err, content.ErrNotFound):
		if !c.Defined() {
			return fault.Wrap(err, codes.NotFound, ReasonNotFound, "the content is not here")
		}
		return fault.Wrap(err, codes.NotFound, ReasonNotFound, "the content %s, or a part of it, is not here", c)
	case errors.Is(err, content.ErrClosed):
		return fault.Wrap(err, codes.Unavailable, fault.ReasonShuttingDown, "the content store is shutting down: try again")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.From(err)
	}
	return fault.From(err)
}
