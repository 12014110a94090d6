package alias

import (
	"sync"
	"time"
)

// lookAgain is how long a home in which there is no key is not looked into again.
const lookAgain = time.Second

// OfHome returns a function that says what the home in dir calls a peer, and "" while the home has no key, as in open mode: the process that
// makes it may start later than the one that asks.
func OfHome(dir string) func(peerID string) string {
	var mu sync.Mutex
	var key *Key
	var looked time.Time
	return func(peerID string) string {
		mu.Lock()
		defer mu.Unlock()
		if key == nil && time.Since(looked) >= lookAgain {
			key, _ = Find(dir) // one that cannot be read is for the process to complain of that cannot do without
			looked = time.Now()
		}
		if key == nil {
			return ""
		}
		return key.Of(peerID)
	}
}
