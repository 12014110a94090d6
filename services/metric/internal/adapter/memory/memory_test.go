package memory_test

import (
	"testing"

	"github.com/shallot-net/shallot/services/metric/internal/adapter/memory"
	"github.com/shallot-net/shallot/services/metric/internal/app"
	"github.com/shallot-net/shallot/services/metric/internal/app/versionstest"
)

func TestConformance(t *testing.T) {
	versionstest.Run(t, func(*testing.T) versionstest.Store {
		v := &memory.Versions{}
		return versionstest.Store{Versions: v, Reopen: func() app.Versions { return v }}
	})
}
