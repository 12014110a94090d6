package consumer

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/treepath"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Bounds of what a user may ask for.
const (
	maxRequestID  = 128
	maxLabels     = 16
	maxLabelKey   = 64
	maxLabelValue = 256
	maxParts      = 1024
	maxOptions    = 4 << 20
	maxPeers      = 64
	maxClock      = 30 * 24 * time.Hour
	maxInline     = 7 << 20 // of all inline parts together; a message has 8 MiB
)

func invalid(field, format string, args ...any) error {
	return fault.InvalidArgument("SPEC_INVALID", format, args...).With("field", field)
}

func checkRequestID(id string) error {
	switch {
	case id == "":
		return invalid("request_id", "request_id is empty: make a random one, so that a repeated request returns the same task")
	case len(id) > maxRequestID || !utf8.ValidString(id):
		return invalid("request_id", "request_id has %d bytes: it must be text of at most %d", len(id), maxRequestID)
	}
	return nil
}

func checkSpec(s *app.Spec) error {
	if err := checkType(s.Type); err != nil {
		return err
	}
	if len(s.Options) > maxOptions {
		return invalid("options", "the %s payload's options have %s: they may have %s; put what is large into a part", s.Type, domain.Bytes(int64(len(s.Options))), domain.Bytes(maxOptions))
	}
	if err := checkLabels(s.Labels); err != nil {
		return err
	}
	if s.Limits.Time < 0 || s.Limits.Memory < 0 || s.Limits.Output < 0 {
		return invalid("limits", "a limit is negative: it must be a time or a size, or unset for the provider's default")
	}
	if err := checkClocks(s.Clocks); err != nil {
		return err
	}
	if err := checkPolicy(s.Policy); err != nil {
		return err
	}
	return checkParts(s.Parts)
}

func checkType(t string) error {
	if !domain.ValidType(t) {
		return invalid("type", "type is %q: it must be a name in lower case such as sum or wasm, of at most %d bytes", clip(t, domain.MaxType), domain.MaxType)
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return invalid("labels", "there are %d labels: at most %d are kept", len(labels), maxLabels)
	}
	for k, v := range labels {
		if k == "" || len(k) > maxLabelKey || len(v) > maxLabelValue {
			return invalid("labels", "the label %q has a name of %d and a value of %d bytes: at most %d and %d are kept, and the name must not be empty",
				clip(k, maxLabelKey), len(k), len(v), maxLabelKey, maxLabelValue)
		}
	}
	return nil
}

func checkClocks(c domain.Clocks) error {
	for name, d := range map[string]time.Duration{"placement": c.Placement, "queue": c.Queue, "run": c.Run, "collection": c.Collection, "total": c.Total} {
		if d < 0 || d > maxClock {
			return invalid("clocks."+name, "the %s clock is %s: it must be from 0 (the default) to %s", name, d, maxClock)
		}
	}
	return nil
}

func checkPolicy(p domain.Policy) error {
	if p.MaxAttempts > domain.MaxAttempts {
		return invalid("placement.max_attempts", "max_attempts is %d: at most %d are made", p.MaxAttempts, domain.MaxAttempts)
	}
	if p.Replicas > domain.MaxReplicas {
		return invalid("placement.replicas", "replicas is %d: from 1 (the provider that runs the task alone) to %d providers may keep a result", p.Replicas, domain.MaxReplicas)
	}
	for field, peers := range map[string][]string{"placement.providers": p.Only, "placement.exclude": p.Exclude} {
		if len(peers) > maxPeers {
			return invalid(field, "%s has %d peers: it may have %d", field, len(peers), maxPeers)
		}
		for _, id := range peers {
			if !domain.ValidPeer(id) {
				return invalid(field, "%s has %q, which is not a peer id", field, clip(id, 64))
			}
		}
	}
	return nil
}

func checkParts(parts []app.PartSource) error {
	if len(parts) > maxParts {
		return invalid("payload", "the payload has %d parts: it may have %d", len(parts), maxParts)
	}
	seen, inline, inputs := make(map[string]bool, len(parts)), 0, make([]string, 0, len(parts))
	for _, p := range parts {
		if seen[p.Name] {
			return invalid("payload", "%s is given twice", p.Name)
		}
		seen[p.Name] = true
		name, input := strings.CutPrefix(p.Name, app.PrefixInput)
		if input {
			inputs = append(inputs, name)
		} else if err := treepath.Check(name); err != nil { // an executor's own names have the same shape
			return invalid("payload", "the part %q cannot be sent: its name must be a relative path with slashes, and %v", treepath.Shown(name), err)
		}
		if inline += len(p.Inline); inline > maxInline {
			return invalid("payload", "the inline parts have more than %s together: send large ones with Upload", domain.Bytes(maxInline))
		}
	}
	if err := treepath.CheckAll(inputs); err != nil {
		return invalid("inputs.path", "the input files cannot be sent: %v", err)
	}
	return nil
}
