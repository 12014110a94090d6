package app

import (
	"errors"
	"slices"
	"time"

	"github.com/shallot-net/shallot/broker/internal/domain/delivery"
	"github.com/shallot-net/shallot/broker/internal/domain/event"
	"github.com/shallot-net/shallot/kit/fault"
)

// Bounds of a subscription.
const (
	defaultInFlight   = 256
	maxInFlight       = 4096
	defaultAckTimeout = 10 * time.Second
	minAckTimeout     = 10 * time.Millisecond
	maxAckTimeout     = 10 * time.Minute
	maxMembers        = 256
)

// Interest is what a member of a group wants; zero values take the defaults.
type Interest struct {
	Group       string
	Topics      []string
	Types       []event.Type
	MaxInFlight int
	AckTimeout  time.Duration
}

func (i *Interest) check(codec Codec) error {
	set(&i.MaxInFlight, defaultInFlight)
	set(&i.AckTimeout, defaultAckTimeout)
	invalid := func(format string, args ...any) error {
		return fault.InvalidArgument("SUBSCRIPTION_INVALID", format, args...)
	}
	switch {
	case i.Group == "" || len(i.Group) > 64:
		return invalid("group %q: it must have 1 to 64 bytes; services use their own name", i.Group)
	case len(i.Topics) == 0 && len(i.Types) == 0:
		return invalid("the subscription of group %q names neither a topic nor a type", i.Group)
	case i.MaxInFlight < 0 || i.MaxInFlight > maxInFlight:
		return invalid("max_in_flight is %d: it must be %d at most", i.MaxInFlight, maxInFlight)
	case i.AckTimeout < minAckTimeout || i.AckTimeout > maxAckTimeout:
		return invalid("ack_timeout is %v: it must be %v to %v", i.AckTimeout, minAckTimeout, maxAckTimeout)
	}
	for _, t := range i.Topics {
		if !event.KnownTopic(t) {
			return unknownTopic(t)
		}
	}
	for _, t := range i.Types {
		if !codec.Known(t) {
			return invalid("event type %d is not known to this broker", t)
		}
	}
	slices.Sort(i.Topics)
	i.Topics = slices.Compact(i.Topics)
	return nil
}

func unknownTopic(t string) error {
	return fault.InvalidArgument("TOPIC_UNKNOWN", "topic %q: there are only %v; %s", t, event.Topics(), fault.Suggest(t, event.Topics()))
}

// Subscribe adds a member to a group. Deliveries begin at once; the topics are joined when it returns.
func (b *Broker) Subscribe(i Interest) (*Subscription, error) {
	if err := i.check(b.cfg.Codec); err != nil {
		return nil, err
	}
	if err := b.useTopics(i.Topics); err != nil {
		return nil, err
	}
	s := &Subscription{broker: b, topics: i.Topics, ready: make(chan struct{}, 1), done: make(chan struct{})}
	var err error
	b.inbox.do(func(now time.Time) {
		switch {
		case b.inbox.closed:
			err = fault.Unavailable(fault.ReasonShuttingDown, "the broker is shutting down")
		case len(b.inbox.subs) >= maxMembers:
			err = fault.ResourceExhausted("TOO_MANY_SUBSCRIPTIONS", "%d subscriptions are open, which is the most", maxMembers)
		default:
			b.inbox.subs[s] = struct{}{}
			s.member = b.inbox.hub.Join(i.Group, delivery.Filter{Topics: i.Topics, Types: i.Types}, i.MaxInFlight, i.AckTimeout, s, now)
			b.obs.Adjust("members", 1)
		}
	})
	if err != nil {
		b.releaseTopics(i.Topics)
		return nil, err
	}
	return s, nil
}

// topicUse counts the members that want a topic. It is left a while after the last has gone: a service that restarts must not cost its
// place in everybody's mesh, where a peer that left is not taken back for some seconds.
type topicUse struct {
	members int
	leave   *time.Timer
}

func (b *Broker) useTopics(topics []string) error {
	b.joining.Lock()
	defer b.joining.Unlock()
	b.mu.Lock()
	for _, t := range topics {
		u, ok := b.topics[t]
		if !ok {
			u = &topicUse{}
			b.topics[t] = u
		}
		u.members++
		if u.leave != nil {
			u.leave.Stop()
			u.leave = nil
		}
	}
	personas := make([]*persona, 0, len(b.personas))
	for _, p := range b.personas {
		personas = append(personas, p)
	}
	b.mu.Unlock()
	var errs []error
	for _, p := range personas {
		errs = append(errs, p.join())
	}
	if err := errors.Join(errs...); err != nil {
		b.releaseTopics(topics)
		return err
	}
	return nil
}

func (b *Broker) releaseTopics(topics []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range topics {
		u := b.topics[t]
		if u.members--; u.members > 0 || b.closed {
			continue
		}
		u.leave = time.AfterFunc(b.limits.TopicKept, func() { b.leaveTopic(t, u) })
	}
}

func (b *Broker) leaveTopic(t string, u *topicUse) {
	b.joining.Lock()
	defer b.joining.Unlock()
	b.mu.Lock()
	if u.members > 0 || b.topics[t] != u {
		b.mu.Unlock()
		return
	}
	delete(b.topics, t)
	personas := make([]*persona, 0, len(b.personas))
	for _, p := range b.personas {
		personas = append(personas, p)
	}
	b.mu.Unlock()
	for _, p := range personas {
		p.mu.Lock()
		leave := p.leaves[t]
		delete(p.leaves, t)
		p.mu.Unlock()
		if leave != nil {
			leave()
		}
	}
}

func (p *persona) joinWanted() error {
	p.broker.joining.Lock()
	defer p.broker.joining.Unlock()
	return p.join()
}

// join joins what some member wants and this persona has not joined. Under broker.joining. Only the node's own persona hears gossip: a throw-away one talks to the provider of
// its task and to nobody else.
func (p *persona) join() error {
	if p.name != "" {
		return nil
	}
	p.broker.mu.Lock()
	wanted := make([]string, 0, len(p.broker.topics))
	for t := range p.broker.topics {
		wanted = append(wanted, t)
	}
	p.broker.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range wanted {
		if p.leaves[t] != nil {
			continue
		}
		leave, err := p.host.Join(t)
		if err != nil {
			return err
		}
		p.leaves[t] = leave
	}
	return nil
}
