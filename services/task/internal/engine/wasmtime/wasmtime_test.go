//go:build cgo

package wasmtime

import (
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/engine"
	"github.com/shallot-net/shallot/services/task/internal/engine/enginetest"
)

func open(scratch string) (engine.Engine, error) { return New(scratch) }

func TestSuite(t *testing.T) { enginetest.Suite(t, open) }

func BenchmarkHello(b *testing.B) {
	e, err := open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	enginetest.Bench(b, e, enginetest.Program("hello"), engine.Config{})
}
