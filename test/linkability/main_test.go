// Package linkability plays colluding providers and consumers over a private Tor network, and tries to tell which tasks are of one consumer.
package linkability

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/shallot-net/shallot/test/internal/dev"
)

var (
	bin    string
	record = flag.String("record", "", "a `folder` for what was seen of each task, to be looked at by other means")
)

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if bin, err = dev.Bin(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func long() bool { return os.Getenv("SHALLOT_LONG") != "" }

// needTor leaves the test out where tor is not installed. In CI it must be.
func needTor(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("tor"); err == nil {
		return
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, "tor")); err == nil {
			return
		}
	}
	const how = "tor is not installed; to get it: apt-get install tor"
	if os.Getenv("CI") == "true" {
		t.Fatal(how)
	}
	t.Skip("left out: " + how)
}
