package repository

import (
	"context"
	"fmt"
	"testing"
)

func TestPutGetSizes(t *testing.T) {
	s := newStore(t)
	for _, n := range []int{0, 1, 1000, 64 << 10, 64<<10 + 1, chunkSize - 1, chunkSize, chunkSize + 1, 5*chunkSize + 17, 20 * chunkSize} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			data := randomBytes(uint64(n), n)
			c := put(t, s, data, "user")
			mustGet(t, s, c, Source{Local: true}, data)
		})
	}
}

func TestFetchFromPeer(t *testing.T) {
	a, b := newStore(t), newStore(t)
	ha, hb := attach(t, a), attach(t, b)
	know(hb, ha)
	data := randomBytes(1, 32<<20)
	c := put(t, a, data, "user")
	from := Source{Peers: []string{ha.ID().String()}}
	mustGet(t, b, c, from, data)
	mustGet(t, b, c, Source{Local: true}, data)
	if _, err := b.Pin(context.Background(), c, PinFor{Owner: "user"}, from); err != nil {
		t.Fatal(err)
	}
}
