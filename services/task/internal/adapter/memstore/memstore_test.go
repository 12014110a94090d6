package memstore_test

import (
	"testing"

	"github.com/shallot-net/shallot/services/task/internal/adapter/memstore"
	"github.com/shallot-net/shallot/services/task/internal/adapter/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Store { return memstore.New() })
}
