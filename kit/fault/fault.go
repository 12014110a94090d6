package fault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Domain is the errdetails.ErrorInfo domain of every fault.
const Domain = "shallot.net"

// Reasons that kit itself gives.
const (
	ReasonInternal     = "INTERNAL"
	ReasonCancelled    = "CANCELLED"
	ReasonDeadline     = "DEADLINE_EXCEEDED"
	ReasonShuttingDown = "SHUTTING_DOWN"
)

// A status travels in an HTTP/2 header, which peers bound at 8 to 16 KiB.
const (
	maxMessage = 2 << 10
	maxMeta    = 16
	maxValue   = 256
)

// Error says what was wrong, with which input, and what would mend it. Code, Reason, Message and Meta
// cross the wire; the cause is for the log of the process where it happened and never does.
type Error struct {
	Code    codes.Code
	Reason  string // UPPER_SNAKE, stable: programs branch on it
	Message string
	Meta    map[string]string
	cause   error
	masked  bool
}

// New makes an error whose message is formatted as by fmt.Sprintf.
func New(code codes.Code, reason, format string, args ...any) *Error {
	return &Error{Code: code, Reason: reason, Message: sprintf(format, args)}
}

// Wrap is New with a cause, which errors.Is and errors.As see and other processes do not.
func Wrap(err error, code codes.Code, reason, format string, args ...any) *Error {
	return &Error{Code: code, Reason: reason, Message: sprintf(format, args), cause: err}
}

func sprintf(format string, args []any) string {
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}

// With returns a copy that carries one more machine-readable value.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Meta = maps.Clone(e.Meta)
	if c.Meta == nil {
		c.Meta = make(map[string]string, 1)
	}
	c.Meta[key] = value
	return &c
}

// Because returns a copy with the given cause.
func (e *Error) Because(err error) *Error {
	c := *e
	c.cause = err
	return &c
}

// Error includes the cause: it is for this process's log and terminal. What others see is Message.
func (e *Error) Error() string {
	if e.cause == nil {
		return e.Message
	}
	return e.Message + ": " + e.cause.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is holds for every fault with the same Reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// GRPCStatus is what crosses the wire, cut to what fits a header.
func (e *Error) GRPCStatus() *status.Status {
	code := e.Code
	if code == codes.OK {
		code = codes.Internal // an error is never a success
	}
	st := status.New(code, clip(e.Message, maxMessage))
	info := &errdetails.ErrorInfo{Reason: e.Reason, Domain: Domain}
	for k, v := range e.Meta {
		if len(info.Metadata) == maxMeta {
			break
		}
		if info.Metadata == nil {
			info.Metadata = make(map[string]string, len(e.Meta))
		}
		info.Metadata[clip(k, 64)] = clip(v, maxValue)
	}
	if with, err := st.WithDetails(info); err == nil {
		return with
	}
	return st
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// From turns any error into a fault: a fault anywhere in the chain as it is, a gRPC status by its ErrorInfo,
// a context's end as CANCELLED or DEADLINE_EXCEEDED, everything else as INTERNAL with a masked message and
// err as the cause. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var f *Error
	if errors.As(err, &f) {
		return f
	}
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return fromStatus(s.GRPCStatus(), err)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Wrap(err, codes.Canceled, ReasonCancelled, "the call was cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return Wrap(err, codes.DeadlineExceeded, ReasonDeadline, "the call did not finish before its deadline")
	}
	return &Error{Code: codes.Internal, Reason: ReasonInternal, Message: "internal error", cause: err, masked: true}
}

// Masked says that From made this fault of an error nobody described: only the cause tells what happened.
func (e *Error) Masked() bool { return e.masked }

func fromStatus(st *status.Status, err error) *Error {
	e := &Error{Code: st.Code(), Reason: codeName(st.Code()), Message: st.Message()}
	if e.Message == "" {
		e.Message = strings.ToLower(strings.ReplaceAll(e.Reason, "_", " "))
	}
	// gRPC itself says these two with a status; callers look for the context's errors.
	switch st.Code() {
	case codes.Canceled:
		e.cause = context.Canceled
	case codes.DeadlineExceeded:
		e.cause = context.DeadlineExceeded
	case codes.OK:
		e.Code, e.Reason, e.cause = codes.Internal, ReasonInternal, err
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			e.Reason, e.Meta = info.GetReason(), info.GetMetadata()
			break
		}
	}
	return e
}

var codeNames = map[codes.Code]string{
	codes.Canceled: ReasonCancelled, codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.DeadlineExceeded: ReasonDeadline, codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE",
	codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: ReasonInternal, codes.Unavailable: "UNAVAILABLE",
	codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED",
}

func codeName(c codes.Code) string {
	if n, ok := codeNames[c]; ok {
		return n
	}
	return "UNKNOWN"
}
