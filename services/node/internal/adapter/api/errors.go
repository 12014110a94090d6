package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/node/internal/domain"
)

const (
	maxShown  = 128 // bytes of an input that a message repeats
	maxPage   = 1000
	maxPiece  = 1 << 20
	userOwner = "user"
)

func shown(s string) string {
	if len(s) > maxShown {
		return s[:maxShown] + "…"
	}
	return s
}

// near suggests the known word that is like this one: it begins alike, or is two edits away.
func near(word string, known []string) string {
	if s := fault.Suggest(word, known); s != "" {
		return ": " + s
	}
	if len(word) >= 4 && len(word) < maxShown {
		found := ""
		for _, k := range known {
			if k != word && (strings.HasPrefix(k, word) || strings.HasSuffix(k, word)) {
				if found != "" {
					return fmt.Sprintf(": several begin or end like that, for example %q", found)
				}
				found = k
			}
		}
		if found != "" {
			return fmt.Sprintf(": did you mean %q?", found)
		}
	}
	return ""
}

// checkTaskID refuses what cannot be a task's id.
func (s *Service) checkTaskID(ctx context.Context, id string) error {
	if domain.ValidTaskID(id) {
		return nil
	}
	if id == "" {
		return fault.InvalidArgument("TASK_ID_MISSING", "task_id is empty")
	}
	return fault.InvalidArgument("TASK_ID_INVALID", "task_id is %q, and a task id has %d lowercase hex digits%s", shown(id), domain.TaskIDLength, near(id, s.taskIDs(ctx)))
}

// taskError adds to NOT_FOUND what may have been meant.
func (s *Service) taskError(ctx context.Context, id string, err error) error {
	f := fault.From(err)
	if f == nil || f.Code != codes.NotFound {
		return err
	}
	return fault.NotFound("TASK_NOT_FOUND", "there is no task %s on this node%s", shown(id), near(id, s.taskIDs(ctx))).With("task_id", shown(id)).Because(err)
}

// taskIDs are the newest tasks', for suggestions only.
func (s *Service) taskIDs(ctx context.Context) []string {
	r, err := s.cfg.Tasks.ListTasks(ctx, &taskv1.ListTasksRequest{PageSize: maxPage})
	if err != nil {
		return nil
	}
	ids := make([]string, 0, len(r.GetTasks()))
	for _, t := range r.GetTasks() {
		ids = append(ids, t.GetId())
	}
	return ids
}

func checkPeerID(ctx context.Context, v View, id string) error {
	if domain.ValidPeerID(id) {
		return nil
	}
	if id == "" {
		return fault.InvalidArgument("PEER_ID_MISSING", "peer_id is empty")
	}
	return fault.InvalidArgument("PEER_ID_INVALID", "peer_id is %q, which is no peer id%s", shown(id), near(id, peerIDs(ctx, v)))
}

func peerError(ctx context.Context, v View, id string, err error, what string) error {
	f := fault.From(err)
	if f == nil || f.Code != codes.NotFound {
		return err
	}
	return fault.NotFound("PEER_NOT_FOUND", "%s %s%s", what, shown(id), near(id, peerIDs(ctx, v))).With("peer_id", shown(id)).Because(err)
}

func peerIDs(ctx context.Context, v View) []string {
	peers, _, err := v.ListPeers(ctx, PeerQuery{PageSize: maxPage})
	if err != nil {
		return nil
	}
	ids := make([]string, 0, len(peers))
	for _, p := range peers {
		ids = append(ids, p.GetPeerId())
	}
	return ids
}

// checkCID looks at the form only: the broker parses it.
func (s *Service) checkCID(ctx context.Context, cid string) error {
	if cid == "" {
		return fault.InvalidArgument("CID_MISSING", "cid is empty")
	}
	if len(cid) > 256 {
		return fault.InvalidArgument("CID_INVALID", "cid has %d bytes, which is too long for one: %q", len(cid), shown(cid))
	}
	return nil
}

// contentError adds the CID, and what may have been meant, to what the broker says.
func (s *Service) contentError(ctx context.Context, cid string, err error) error {
	f := fault.From(err)
	if f == nil || f.Code != codes.NotFound && f.Code != codes.InvalidArgument || strings.HasPrefix(f.Reason, "PATH_") { // it says all
		return err
	}
	var known []string
	if r, err := s.cfg.Content.ListPins(ctx, &brokerv1.ListPinsRequest{Owner: userOwner, PageSize: maxPage}); err == nil {
		for _, p := range r.GetPins() {
			known = append(known, p.GetCid())
		}
	}
	hint := near(cid, known)
	if strings.Contains(f.Message, cid) && hint == "" {
		return err
	}
	if f.Code == codes.InvalidArgument {
		return fault.InvalidArgument(f.Reason, "cid is %q: %s%s", shown(cid), f.Message, hint).Because(err)
	}
	return fault.NotFound(f.Reason, "no content %s: %s%s", shown(cid), f.Message, hint).With("cid", shown(cid)).Because(err)
}

// receiver is a stream of responses.
type receiver[T any] interface{ Recv() (T, error) }

// forward hands a stream on, piece by piece: the receiver's pace is the sender's.
func forward[T any](from receiver[T], give func(T) error) error {
	for {
		m, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := give(m); err != nil {
			return err
		}
	}
}

func checkPage(size uint32) error {
	if size > maxPage {
		return fault.InvalidArgument("PAGE_TOO_LARGE", "page_size is %d and may be %d", size, maxPage)
	}
	return nil
}

func checkPiece(data []byte) error {
	if len(data) > maxPiece {
		return fault.InvalidArgument("PIECE_TOO_LARGE", "data has %d bytes and may have %d: send the body in smaller pieces", len(data), maxPiece)
	}
	return nil
}
