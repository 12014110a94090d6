package rest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/logging"
)

// Problem is the body of every answer that is an error.
type Problem struct {
	// Code is a gRPC status code's name, such as NOT_FOUND.
	Code string `json:"code"`
	// Reason is for programs, such as TASK_NOT_FOUND.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Meta has the values that the message speaks of.
	Meta map[string]string `json:"meta,omitempty"`
	// Reference finds an internal error in the log of this node.
	Reference string `json:"reference,omitempty"`
}

type problems struct{ log *slog.Logger }

// handle is the error handler of grpc-gateway.
func (p problems) handle(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	p.write(w, r, err)
}

func (p problems) write(w http.ResponseWriter, r *http.Request, err error) {
	f := fault.From(err)
	body := Problem{Code: codeName(f.Code), Reason: f.Reason, Message: f.Message, Meta: f.Meta, Reference: f.Meta["reference"]}
	// What came masked from the service keeps the reference that its log has; what nobody masked yet is masked here.
	if internal(f.Code) && body.Reference == "" {
		body.Reference = rand.Text()[:12]
		p.log.Error("request failed", "path", r.Pattern, logging.KeyReference, body.Reference, logging.Err(err))
		body.Reason, body.Message, body.Meta = fault.ReasonInternal, "internal error, reference "+body.Reference, nil
	}
	writeJSON(w, runtime.HTTPStatusFromCode(f.Code), body)
}

func internal(c codes.Code) bool {
	return c == codes.Internal || c == codes.Unknown || c == codes.DataLoss
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

var names = map[codes.Code]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS",
	codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED", codes.FailedPrecondition: "FAILED_PRECONDITION",
	codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE", codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL",
	codes.Unavailable: "UNAVAILABLE", codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED",
}

func codeName(c codes.Code) string {
	if n, ok := names[c]; ok {
		return n
	}
	return "UNKNOWN"
}
