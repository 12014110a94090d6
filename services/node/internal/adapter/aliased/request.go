package aliased

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shallot-net/shallot/kit/alias"
	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// request puts peer ids in the place of aliases, and opens a page token.
func (m *mask) request(ctx context.Context, req any) error {
	r := &resolver{m: m, ctx: ctx}
	var err error
	switch in := req.(type) {
	case *nodev1.GetPeerRequest:
		in.PeerId, err = r.peer("peer_id", in.GetPeerId())
	case *nodev1.GetPeerMetricsRequest:
		in.PeerId, err = r.peer("peer_id", in.GetPeerId())
	case *nodev1.GetPeerMetricsHistoryRequest:
		in.PeerId, err = r.peer("peer_id", in.GetPeerId())
	case *nodev1.SubmitTaskRequest:
		err = r.placement("spec.placement", in.GetSpec().GetPlacement())
	case *nodev1.RunTaskRequest:
		err = r.placement("spec.placement", in.GetSpec().GetPlacement())
	case *nodev1.GetContentRequest:
		err = r.list("from_peers", in.GetFromPeers())
	case *nodev1.ListContentRequest:
		err = r.list("from_peers", in.GetFromPeers())
	case *nodev1.CreateJobRequest:
		err = r.placement("spec.task.placement", in.GetSpec().GetTask().GetPlacement())
	}
	if err != nil {
		return err
	}
	return m.openToken(req)
}

func (m *mask) openToken(req any) error {
	p, ok := req.(protoreflect.ProtoMessage)
	if !ok {
		return nil
	}
	msg := p.ProtoReflect()
	fd := msg.Descriptor().Fields().ByName("page_token")
	if fd == nil || fd.Kind() != protoreflect.StringKind || !msg.Has(fd) {
		return nil
	}
	token, err := m.tokens.open(msg.Get(fd).String())
	if err != nil {
		return err
	}
	msg.Set(fd, protoreflect.ValueOfString(token))
	return nil
}

// resolver finds whom a request means. It asks for the peers once, and only where there is an alias.
type resolver struct {
	m   *mask
	ctx context.Context
	by  map[string][]string
}

// maxNamed is more than a placement or a request for content may name: what has more is refused by whoever counts.
const maxNamed = 256

func (r *resolver) placement(field string, p *taskv1.PlacementPolicy) error {
	for name, list := range map[string][]string{".providers": p.GetProviders(), ".exclude": p.GetExclude()} {
		if err := r.list(field+name, list); err != nil {
			return err
		}
	}
	return nil
}

func (r *resolver) list(field string, peers []string) error {
	for i := range peers[:min(len(peers), maxNamed)] {
		id, err := r.peer(fmt.Sprintf("%s[%d]", field, i), peers[i])
		if err != nil {
			return err
		}
		peers[i] = id
	}
	return nil
}

// peer returns the peer id that an alias stands for; what is no alias it returns as it is.
func (r *resolver) peer(field, given string) (string, error) {
	name, ok := alias.Parse(given)
	if !ok && !alias.Meant(given) {
		return given, nil
	}
	if err := r.know(); err != nil {
		return "", err
	}
	if !ok {
		return "", fault.InvalidArgument("ALIAS_INVALID", "%s is %.40q, which is no alias%s (`shallot peers` lists them)", field, given, r.near(given)).With("peer_id", given)
	}
	switch found := r.by[name]; len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fault.NotFound("PEER_NOT_FOUND", "%s is %s, and this node knows no peer of this alias%s (`shallot peers` lists them)", field, name, r.near(name)).With("peer_id", name)
	default:
		return "", fault.FailedPrecondition("ALIAS_AMBIGUOUS", "%s is %s, and %d peers have this alias: name one by its peer id, which `shallot peers --show-addresses` lists", field, name, len(found)).With("peer_id", name)
	}
}

func (r *resolver) know() error {
	if r.by != nil {
		return nil
	}
	known, err := r.m.peers(r.ctx)
	if err != nil {
		return err
	}
	r.by = make(map[string][]string, len(known))
	for _, id := range known {
		if a := r.m.key.Of(id); a != "" && !slices.Contains(r.by[a], id) {
			r.by[a] = append(r.by[a], id)
		}
	}
	return nil
}

// near says which alias may have been meant.
func (r *resolver) near(given string) string {
	names := make([]string, 0, len(r.by))
	for a := range r.by {
		names = append(names, a)
	}
	slices.Sort(names)
	if s := fault.Suggest(given, names); s != "" {
		return ": " + s
	}
	return ""
}
