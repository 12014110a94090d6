package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
)

// Exit codes. They are documented by `shallot help exit-codes`, which a test compares with this list.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitNoNode   = 4
	exitState    = 5
	exitDenied   = 6
	exitFull     = 7

	exitTime        = 124
	exitRun         = 125
	exitTask        = 126
	exitInterrupted = 130
)

var errInterrupted = errors.New("interrupted")

// codeError ends the program with a code; without an error nothing is printed.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// usageError is a mistake on the command line.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exit prints what went wrong and returns the exit code for it.
func (a *app) exit(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	var coded *codeError
	if errors.As(err, &coded) && coded.err == nil {
		return coded.code
	}
	code := codeOf(err)
	if under(cmd, "run") && coded == nil && code != exitInterrupted {
		code = exitRun // the others may be the program's own
	}
	a.say("%s", message(err))
	var u *usageError
	if errors.As(err, &u) {
		fmt.Fprintf(a.Stderr, "see '%s --help'\n", cmd.CommandPath())
	}
	return code
}

func under(cmd *cobra.Command, name string) bool {
	for ; cmd != nil; cmd = cmd.Parent() {
		if cmd.Name() == name && cmd.HasParent() && !cmd.Parent().HasParent() {
			return true
		}
	}
	return false
}

func codeOf(err error) int {
	var coded *codeError
	var u *usageError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &u):
		return exitUsage
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		return exitFailed
	}
	switch f.Code {
	case codes.InvalidArgument, codes.OutOfRange:
		return exitUsage
	case codes.NotFound:
		return exitNotFound
	case codes.Unavailable, codes.DeadlineExceeded:
		return exitNoNode
	case codes.FailedPrecondition, codes.AlreadyExists, codes.Aborted:
		return exitState
	case codes.PermissionDenied, codes.Unauthenticated:
		return exitDenied
	case codes.ResourceExhausted:
		return exitFull
	case codes.Canceled:
		return exitInterrupted
	}
	return exitFailed
}

// message is an error as one paragraph for a person.
func message(err error) string {
	var f *fault.Error
	if errors.As(err, &f) && f.Code == codes.DeadlineExceeded && errors.Is(err, context.DeadlineExceeded) {
		return "the node did not answer in time: 'shallot doctor' says more"
	}
	return strings.TrimSpace(err.Error())
}
