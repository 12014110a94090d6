package invite

import (
	"fmt"
	"slices"
	"testing"
)

func TestThrough(t *testing.T) {
	near, far := "/ip4/127.0.0.1/tcp/1/p2p/a", "/ip4/192.0.2.7/tcp/1/p2p/a"
	if got := Through([][]string{{near, far, "nothing"}, {near}, {}}); !slices.Equal(got, []string{far, near}) {
		t.Errorf("got %v", got)
	}
	var many [][]string
	for i := range 9 {
		var one []string
		for j := range 9 {
			one = append(one, fmt.Sprintf("/ip4/192.0.2.%d/tcp/%d/p2p/a", i+1, j+1))
		}
		many = append(many, one)
	}
	if got := Through(many); len(got) != MaxAddresses || got[4] != many[1][0] {
		t.Errorf("%d addresses: %v", len(got), got)
	}
	if Through(nil) != nil {
		t.Error("of nobody")
	}
}
