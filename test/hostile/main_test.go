// Package hostile attacks a network of real processes as an outsider would, and measures what that costs the others.
package hostile

import (
	"fmt"
	"os"
	"testing"

	"github.com/shallot-net/shallot/test/internal/dev"
)

var bin string

func TestMain(m *testing.M) {
	var err error
	if bin, err = dev.Bin(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
