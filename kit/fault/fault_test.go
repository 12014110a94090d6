package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shallot-net/shallot/kit/fault"
)

func TestRoundTripKeepsAllButTheCause(t *testing.T) {
	sent := fault.Wrap(io.ErrUnexpectedEOF, codes.NotFound, "TASK_NOT_FOUND", "no task %q", "abc").With("task", "abc")
	wire := fmt.Errorf("handling: %w", sent.GRPCStatus().Err())
	got := fault.From(wire)
	if got.Code != codes.NotFound || got.Reason != "TASK_NOT_FOUND" || got.Message != `no task "abc"` || got.Meta["task"] != "abc" {
		t.Errorf("got %+v", got)
	}
	if !errors.Is(got, sent) || errors.Is(got, io.ErrUnexpectedEOF) || strings.Contains(got.Error(), "EOF") {
		t.Error("the reason must cross and the cause must not")
	}
	if !errors.Is(sent, io.ErrUnexpectedEOF) || !strings.Contains(sent.Error(), "EOF") {
		t.Error("the cause is for this process")
	}
	if sent.With("a", "b"); len(sent.Meta) != 1 {
		t.Error("With changed the original")
	}
}

func TestFrom(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		code   codes.Code
		reason string
		is     error
		masked bool
	}{
		"plain":           {errors.New("secret"), codes.Internal, "INTERNAL", nil, true},
		"cancelled":       {fmt.Errorf("x: %w", context.Canceled), codes.Canceled, "CANCELLED", context.Canceled, false},
		"deadline":        {context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED", context.DeadlineExceeded, false},
		"status":          {status.Error(codes.Unavailable, "down"), codes.Unavailable, "UNAVAILABLE", nil, false},
		"status deadline": {status.Error(codes.DeadlineExceeded, "late"), codes.DeadlineExceeded, "DEADLINE_EXCEEDED", context.DeadlineExceeded, false},
		"wrapped fault":   {fmt.Errorf("x: %w", fault.AlreadyExists("THERE", "there")), codes.AlreadyExists, "THERE", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := fault.From(c.err)
			if f.Code != c.code || f.Reason != c.reason || f.Masked() != c.masked {
				t.Errorf("got %+v", f)
			}
			if c.is != nil && !errors.Is(f, c.is) {
				t.Errorf("%v is not %v", f, c.is)
			}
			if strings.Contains(f.Message, "secret") {
				t.Errorf("message %q shows the cause", f.Message)
			}
		})
	}
	if fault.From(nil) != nil {
		t.Error("From(nil) is not nil")
	}
}

func TestStatusFitsAHeader(t *testing.T) {
	f := fault.InvalidArgument("LONG", "%s", strings.Repeat("ä", 1<<20)+"\xff")
	for i := range 100 {
		f = f.With(fmt.Sprint(i), strings.Repeat("x", 10000))
	}
	st := f.GRPCStatus()
	if n := len(st.Proto().String()); n > 10<<10 || !utf8.ValidString(st.Message()) {
		t.Errorf("%d bytes", n)
	}
	if (&fault.Error{}).GRPCStatus().Code() != codes.Internal {
		t.Error("an error without a code passes for a success")
	}
}

func TestSuggestIsNotFooledByWordsOfOneLength(t *testing.T) {
	if got := fault.Suggest("--view-sise", []string{"--log.level", "--view_size", "--role"}); got != `did you mean "--view_size"?` {
		t.Errorf("got %s", got)
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"listen", "log.level", "home", "sum", "wasm"}
	for word, want := range map[string]string{
		"lisen": `did you mean "listen"?`, "log.levle": `did you mean "log.level"?`, "HOME": `did you mean "home"?`,
		"listen": "", "zzz": "", "": "", "su": `did you mean "sum"?`, "wsam": `did you mean "wasm"?`, "completely": "",
	} {
		if got := fault.Suggest(word, known); got != want {
			t.Errorf("Suggest(%q) = %s, want %s", word, got, want)
		}
	}
}
