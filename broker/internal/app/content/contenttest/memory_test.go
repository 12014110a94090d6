package contenttest

import (
	"testing"

	app "github.com/shallot-net/shallot/broker/internal/app/content"
)

func TestMemory(t *testing.T) {
	Run(t, Harness{
		Open:   func(*testing.T) app.Store { return NewMemory() },
		Damage: func(_ *testing.T, s app.Store, key string) { s.(*Memory).Damage(key) },
	})
}
