package supervisor

import (
	"fmt"
	"strings"
	"sync"

	"github.com/shallot-net/shallot/kit/tor"
)

// bootstrap follows a node's own tor on its way into the network, by what it logs.
type bootstrap struct {
	say func(string) // nil, or told of every step

	mu      sync.Mutex
	at      tor.Bootstrap
	problem string
}

// line reads one line of tor's log.
func (b *bootstrap) line(line string) {
	at, step := tor.ParseBootstrap(line)
	problem, hangs := hanging(line)
	b.mu.Lock()
	news := false
	switch {
	case step:
		news = at != b.at
		b.at, b.problem = at, ""
	case hangs:
		news = problem != b.problem
		b.problem = problem
	}
	what := b.text()
	b.mu.Unlock()
	if news && b.say != nil {
		b.say(what)
	}
}

// restarted is for a tor that begins anew.
func (b *bootstrap) restarted() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at, b.problem = tor.Bootstrap{}, ""
}

// waits is what tor waits for, "" once it is in.
func (b *bootstrap) waits() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at.Percent == 100 {
		return ""
	}
	return b.text()
}

func (b *bootstrap) text() string {
	s := fmt.Sprintf("tor is at %d %%", b.at.Percent)
	if b.at.Summary != "" {
		s += " (" + b.at.Summary + ")"
	}
	if b.problem != "" {
		s += ", and says: " + b.problem
	}
	return s
}

// hanging reads the line by which tor says why it does not get on. What follows the reason names a relay or a bridge, and is left out.
func hanging(line string) (string, bool) {
	_, said, ok := strings.Cut(line, "[warn] Problem bootstrapping. ")
	if !ok {
		return "", false
	}
	reason, _, cut := strings.Cut(said, ";")
	if cut && strings.Count(reason, "(") > strings.Count(reason, ")") {
		reason += ")"
	}
	return reason, true
}
