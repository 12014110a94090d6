package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shallot-net/shallot/kit/home"
	"github.com/shallot-net/shallot/kit/logging"
)

// lookEvery is how soon a gateway hears of a token that another one made or revoked, and of a token file that was replaced.
const lookEvery = time.Second

// Keyring is what lets requests in: the tokens of a node, and the sessions begun with them. What it knows is in files, so that it is the same for
// all gateways of the node.
type Keyring struct {
	File   string // of the main token
	shared shared
	log    *slog.Logger
	now    func() time.Time
	bad    *rate.Limiter

	keys atomic.Pointer[keys]

	mu    sync.Mutex // of what follows
	seen  [2]stamp
	said  string
	spent map[string]time.Time // by this gateway, whether or not the file could be written
	holds map[*hold]struct{}
}

// keys are what was last read. They do not change.
type keys struct {
	main   secret
	tokens map[string]hash
	named  []Named
	spent  map[string]time.Time
}

// Caller is who asks.
type Caller struct {
	// Token is the name of the token that was given, or with which the session was begun.
	Token string
	// Session is its id; "" for who gave a token.
	Session string
	// Until is when the session is over.
	Until time.Time

	hash hash // of the token, so that one made anew under an old name is another
}

// OpenKeyring reads the tokens, and makes the main one where there is none. file is where that is, "" for gateway.token in the home.
func OpenKeyring(file string, h home.Home, log *slog.Logger, now func() time.Time) (*Keyring, error) {
	file = tokenFile(file, h)
	// Bad codes are answered alike beyond five at a time and one a second.
	k := &Keyring{File: file, shared: besideToken(file), log: log, now: now, bad: rate.NewLimiter(1, 5), spent: map[string]time.Time{}, holds: map[*hold]struct{}{}}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k, k.read()
}

// Run keeps the keyring as its files are, until ctx ends.
func (k *Keyring) Run(ctx context.Context) error {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			k.look()
		}
	}
}

// look reads the files where they have changed. What cannot be read leaves all as it was, and is said once.
func (k *Keyring) look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget()
	if k.seen == [2]stamp{stampOf(k.File), stampOf(k.shared.path)} && k.said == "" {
		return
	}
	err := k.read()
	switch {
	case err == nil && k.said != "":
		k.said = ""
		k.log.Info("tokens are read again")
	case err != nil && err.Error() != k.said:
		k.said = err.Error()
		k.log.Error("tokens cannot be read; those of before hold", logging.Err(err))
	}
}

// read reads both files, and ends what is held by those who have lost their right.
func (k *Keyring) read() error {
	seen := [2]stamp{stampOf(k.File), stampOf(k.shared.path)}
	main, err := readMain(k.File)
	if err != nil {
		return err
	}
	if seen[0] == (stamp{}) { // it was made just now
		seen[0] = stampOf(k.File)
	}
	r, err := k.shared.read()
	if err != nil {
		return err
	}
	next := &keys{main: main, tokens: map[string]hash{Main: main.hash}, named: r.Tokens, spent: r.Spent}
	for _, t := range r.Tokens {
		h, err := hex.DecodeString(t.SHA256)
		if err == nil && len(h) == sha256.Size && t.Name != Main {
			next.tokens[t.Name] = hash(h)
		}
	}
	k.seen = seen
	k.keys.Store(next)
	for h := range k.holds {
		if !k.good(&h.caller) {
			h.end()
		}
	}
	return nil
}

// forget lets go what this gateway remembers of codes and sessions that are over by themselves.
func (k *Keyring) forget() {
	now := k.now()
	maps.DeleteFunc(k.spent, func(_ string, until time.Time) bool { return !now.Before(until) })
}

// good tells whether a caller may still ask. The lock is held.
func (k *Keyring) good(c *Caller) bool {
	now := k.keys.Load()
	h, ok := now.tokens[c.Token]
	if !ok || h != c.hash {
		return false
	}
	if c.Session == "" {
		return true
	}
	_, here := k.spent[c.Session]
	_, there := now.spent[c.Session]
	return !here && !there && k.now().Before(c.Until)
}

// token finds whose token an Authorization header carries, in a time that does not tell how much of it was right. One that is not known may be new.
func (k *Keyring) token(header []string) (*Caller, bool) {
	scheme, word, _ := strings.Cut(header[0], " ")
	if len(header) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return nil, false
	}
	got := sha256.Sum256([]byte(strings.TrimSpace(word)))
	for range 2 {
		var found *Caller
		for name, h := range k.keys.Load().tokens {
			if subtle.ConstantTimeCompare(got[:], h[:]) == 1 {
				found = &Caller{Token: name, hash: h}
			}
		}
		if found != nil {
			return found, true
		}
		k.look()
	}
	return nil, false
}

// hold is a request that is being answered.
type hold struct {
	caller Caller
	end    context.CancelFunc
}

// Hold returns a context that ends when the caller's token is revoked or its session is over: what is watched must not outlive the right to. Call
// release when the request is answered. Nobody holds nothing.
func (k *Keyring) Hold(ctx context.Context, c *Caller) (held context.Context, release func()) {
	if c == nil {
		return ctx, func() {}
	}
	end := context.CancelFunc(nil)
	if c.Session != "" {
		ctx, end = context.WithTimeout(ctx, c.Until.Sub(k.now()))
	} else {
		ctx, end = context.WithCancel(ctx)
	}
	h := &hold{*c, end}
	k.mu.Lock()
	k.holds[h] = struct{}{}
	if !k.good(c) { // it was revoked since it was looked at
		end()
	}
	k.mu.Unlock()
	return ctx, func() {
		k.mu.Lock()
		delete(k.holds, h)
		k.mu.Unlock()
		end()
	}
}

// stamp tells one state of a file from another. A file that is not there has the zero stamp.
type stamp struct {
	size int64
	at   time.Time
	file uint64 // its inode
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return stamp{size: -1}
		}
		return stamp{}
	}
	return stamp{info.Size(), info.ModTime(), inode(info)}
}
