package fault

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
	"google.golang.org/grpc/codes"
)

// InvalidArgument says that the request itself is wrong, whatever the state.
func InvalidArgument(reason, format string, args ...any) *Error {
	return New(codes.InvalidArgument, reason, format, args...)
}

// NotFound says that what was named is not there.
func NotFound(reason, format string, args ...any) *Error {
	return New(codes.NotFound, reason, format, args...)
}

// Unavailable says that trying again later may help.
func Unavailable(reason, format string, args ...any) *Error {
	return New(codes.Unavailable, reason, format, args...)
}

// FailedPrecondition says that the state must change before the same request can succeed.
func FailedPrecondition(reason, format string, args ...any) *Error {
	return New(codes.FailedPrecondition, reason, format, args...)
}

// ResourceExhausted says that a limit or a disk is full.
func ResourceExhausted(reason, format string, args ...any) *Error {
	return New(codes.ResourceExhausted, reason, format, args...)
}

// AlreadyExists says that what was to be made is there.
func AlreadyExists(reason, format string, args ...any) *Error {
	return New(codes.AlreadyExists, reason, format, args...)
}

// PermissionDenied says that this caller may not.
func PermissionDenied(reason, format string, args ...any) *Error {
	return New(codes.PermissionDenied, reason, format, args...)
}

// Unauthenticated says that nobody knows who the caller is.
func Unauthenticated(reason, format string, args ...any) *Error {
	return New(codes.Unauthenticated, reason, format, args...)
}

// Suggest returns `did you mean "x"?` for the known word nearest to word, at most two edits away (and fewer
// than the word has letters), else "".
func Suggest(word string, known []string) string {
	best, at := "", 0
	word = clip(word, 128)
	for _, k := range known {
		if len(k)-len(word) > 2 || len(word)-len(k) > 2 {
			continue
		}
		// Without the library's MaxCost, with which it takes words that are far apart for near ones.
		d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(k), nil)
		if d > 2 || d >= len(word) || d >= len(k) || k == word {
			continue
		}
		// Of two equally near, letters swapped are likelier than letters lost.
		if cost := 100*d + max(len(k)-len(word), len(word)-len(k)); best == "" || cost < at {
			best, at = k, cost
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}
