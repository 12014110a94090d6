package floor

import (
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/shallot-net/shallot/test/internal/measure"
)

// TestMain plays a server when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 6 && os.Args[1] == ChildArg {
		Child(os.Args[2], os.Args[3], os.Args[4], os.Args[5] == "true")
		return
	}
	os.Exit(m.Run())
}

func TestBothVariants(t *testing.T) {
	for _, express := range []bool{false, true} {
		n, err := Start(t.TempDir(), express)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Stop()
		if err := n.Sum(); err != nil {
			t.Error(err)
		}
		d, err := measure.InFlight(30, 16, n.Wasm)
		if err != nil || len(d) != 30 || measure.Quantile(d, 0.5) <= 0 {
			t.Errorf("%v, error %v", d, err)
		}
		pids := slices.Collect(maps.Values(n.PIDs()))
		if cpu := measure.CPU(pids...); cpu <= 0 {
			t.Errorf("six servers have taken %v", cpu)
		}
		if pss := measure.PSS(pids...); pss < 1<<20 {
			t.Errorf("six servers have %d bytes", pss)
		}
		if err := n.task([]byte("1 2"), "4\n"); err == nil {
			t.Error("a wrong result is no error")
		}
	}
}
