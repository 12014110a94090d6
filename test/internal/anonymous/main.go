package anonymous

import (
	"fmt"
	"os"
)

// Main is what a TestMain calls first: the test's program is also the watcher of Watch and the host of Stock. In them it does not return.
func Main() {
	var code int
	var err error
	switch {
	case len(os.Args) > 2 && os.Args[0] == watcher:
		code, err = watch(os.Args[1], os.Args[2:])
	case len(os.Args) == 4 && os.Args[1] == stockHost:
		err = stock(os.Args[2], os.Args[3])
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}
