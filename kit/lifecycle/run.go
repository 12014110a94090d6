package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// Run calls every function in a goroutine of its own and returns when all have returned. The first error
// cancels the others' context with itself as the cause, and is what Run returns; a panic is such an error,
// with its stack. A function that returns nil leaves the others running. When ctx ends Run waits for all and
// returns nil, unless one failed for another reason than the end of its context.
func Run(ctx context.Context, fns ...func(ctx context.Context) error) error {
	run, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	for _, fn := range fns {
		wg.Go(func() {
			err := guard(run, fn)
			if err == nil || run.Err() != nil && isEnd(run, err) {
				return
			}
			once.Do(func() {
				first = err
				cancel(err)
			})
		})
	}
	wg.Wait()
	return first
}

// isEnd tells an error that only repeats why the context ended.
func isEnd(ctx context.Context, err error) bool {
	return errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))
}

func guard(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx)
}
