package onions

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/broker/internal/domain/onionsvc"
	"github.com/shallot-net/shallot/kit/fault"
)

// Reasons of faults, beside those of onionsvc.
const (
	ReasonUnreachable = "TOR_UNREACHABLE"
	ReasonRejected    = "TOR_REJECTED"
	ReasonTaken       = "SERVICE_TAKEN"
	ReasonTooMany     = "TOO_MANY_SERVICES"
	ReasonTooManyKeys = "TOO_MANY_CLIENT_KEYS"
)

// What a session answers.
var (
	ErrCollision = errors.New("tor has a service of this key")
	ErrUnknown   = errors.New("tor knows no such service")
)

// Rejected is a request that tor understood and does not take. What tor said of it is not in it, since keys or addresses may be.
type Rejected struct{ Code int }

func (e *Rejected) Error() string { return fmt.Sprintf("tor does not take it (code %d)", e.Code) }

// Trouble is why tor cannot be used now.
type Trouble struct {
	Refused bool   // it answers, and may not be used; else it does not answer
	Detail  string // in words, with how to mend it, without addresses, keys and service ids
}

func (e *Trouble) Error() string { return e.Detail }

// trouble is err as a *Trouble.
func trouble(err error) *Trouble {
	var t *Trouble
	if errors.As(err, &t) {
		return t
	}
	return &Trouble{Detail: "the connection to tor's control port failed"}
}

func invalid(err error) error {
	var i *onionsvc.Invalid
	if errors.As(err, &i) {
		return fault.New(codes.InvalidArgument, i.Reason, "%s", i.Text)
	}
	return err
}
