// Package leak watches anonymous nodes while a peer tries to lure them out of Tor: their system calls, and every packet that would leave the machine.
package leak

import (
	"fmt"
	"os"
	"testing"

	"github.com/shallot-net/shallot/test/internal/anonymous"
	"github.com/shallot-net/shallot/test/internal/dev"
)

var bin string

func TestMain(m *testing.M) {
	anonymous.Main()
	var err error
	if bin, err = dev.Bin(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
