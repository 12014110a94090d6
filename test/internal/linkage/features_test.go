//go:build !race

// The judge is arithmetic in one goroutine: the race detector has nothing to find there, and takes ten times as long over it.

package linkage

import (
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/shallot-net/shallot/proto/shallot/event/v1"
)

// What is planted in events, or in when they come, is found: features are taken from where it is.
func TestFeaturesOfEvents(t *testing.T) {
	const peers = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN" // any that can be decoded; the peer is not looked at here
	for name, c := range map[string]struct {
		plant func(who int, sub *eventv1.TaskSubmission, sealed *eventv1.SealedPayload)
		found string
	}{
		"a key that is used again": {func(who int, _ *eventv1.TaskSubmission, sealed *eventv1.SealedPayload) {
			copy(sealed.SealedKey[1:], strings.Repeat(string(rune('a'+who)), encapsulated))
		}, "encapsulated key, whether equal"},
		"a limit": {func(who int, sub *eventv1.TaskSubmission, _ *eventv1.SealedPayload) {
			sub.Limits = &eventv1.Limits{Memory: uint64(1+who) << 20}
		}, "heard TASK_SUBMISSION: limits.memory"},
		"a size": {func(who int, sub *eventv1.TaskSubmission, _ *eventv1.SealedPayload) {
			sub.ResultRecipient = strings.Repeat("r", 100+who)
		}, "size of payload of heard TASK_SUBMISSION"},
		"a flag": {func(who int, sub *eventv1.TaskSubmission, _ *eventv1.SealedPayload) {
			if sub.Redirect = who == 0; !sub.Redirect {
				sub.ResultRecipient = "rr" // as long as the flag
			}
		}, "heard TASK_SUBMISSION: redirect, whether there"},
		"nothing": {func(int, *eventv1.TaskSubmission, *eventv1.SealedPayload) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 3))
			owners := map[string]int{}
			var sights []Sight
			now := time.Unix(1_000_000, 0)
			random := func(n int) []byte {
				b := make([]byte, n)
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				return b
			}
			for _, i := range r.Perm(80) {
				now = now.Add(time.Duration(r.ExpFloat64() * float64(time.Second)))
				sub, sealed := &eventv1.TaskSubmission{TaskId: hex.EncodeToString(random(16)), Attempt: 1, Type: "wasm"}, &eventv1.SealedPayload{SealedKey: random(1201), Ciphertext: random(300)}
				c.plant(i%4, sub, sealed)
				owners[sub.TaskId] = i % 4
				payload, _ := proto.Marshal(sub)
				attachment, _ := proto.Marshal(sealed)
				sights = append(sights, Sight{At: now, Peer: peers, What: Heard, Event: &eventv1.Event{Id: hex.EncodeToString(random(16)), Type: eventv1.EventType_EVENT_TYPE_TASK_SUBMISSION, Payload: payload, Attachment: attachment}})
			}
			tasks, err := Tasks(sights, owners, nil)
			if err != nil || len(tasks) != 80 {
				t.Fatalf("%d tasks, %v", len(tasks), err)
			}
			v := judged(t, tasks, Promise)
			found := c.found == "" && len(v.Links()) == 0
			for _, l := range v.Links() {
				found = found || l.Name == c.found
			}
			if !found {
				t.Errorf("%q is not found, or something else is:\n%v", c.found, v)
			}
		})
	}
}
