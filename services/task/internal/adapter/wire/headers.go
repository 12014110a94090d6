package wire

import (
	"errors"
	"strings"

	"github.com/shallot-net/shallot/kit/padding"
	"github.com/shallot-net/shallot/kit/treepath"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

var errNotSealed = errors.New("the attachment is not a SealedPayload")

// Bounds of a header's content.
const (
	maxParts    = 1024
	maxPartName = 1024 + len("output:")
	maxOptions  = 4 << 20
	contentKey  = 16 // bytes
)

// DecodePayloadHeader reads what EncodePayloadHeader wrote.
func (Codec) DecodePayloadHeader(b []byte) (*app.PayloadHeader, error) {
	c := &checker{}
	var m taskv1.PayloadHeader
	c.unmarshal(b, &m)
	if len(m.Options) > maxOptions {
		c.fail("options has %d bytes: it may have %d", len(m.Options), maxOptions)
	}
	h := &app.PayloadHeader{TaskID: c.id("task_id", m.TaskId), Type: c.text("type", m.Type, maxType), Options: m.Options, Parts: c.parts(m.Parts), Padding: c.size("padding", m.Padding)}
	if k := m.GetResultKey(); len(k) != 0 {
		if h.ResultKey = k; len(k) != app.ResultKeySize {
			c.fail("result_key has %d bytes: it must have %d", len(k), app.ResultKeySize)
		}
	}
	for i, p := range m.Parts {
		if r := p.GetReference(); r != nil && c.err == nil {
			h.Parts[i].Ref = c.reference(r)
			c.padding("reference.padding", h.Parts[i].Size, h.Parts[i].Ref.Padding)
		}
	}
	c.padding("padding", following(b, h.Parts), h.Padding)
	return h, c.err
}

func (c *checker) reference(r *taskv1.Reference) *domain.Reference {
	if r.GetCid() == "" || len(r.GetKey()) != contentKey {
		c.fail("a part's reference has no cid, or a key of %d bytes: it must have %d", len(r.GetKey()), contentKey)
	}
	return &domain.Reference{CID: c.text("reference.cid", r.GetCid(), maxCID), Key: r.GetKey(), Size: c.size("reference.size", r.GetSize()),
		Padding: c.size("reference.padding", r.GetPadding())}
}

// following is how long a plaintext is without its padding.
func following(header []byte, parts []domain.Part) int64 {
	total := 4 + int64(len(header))
	for i := range parts {
		if parts[i].Ref == nil {
			total += parts[i].Size
		}
	}
	return total
}

// padding: what is left unread must not be more than there is a use for.
func (c *checker) padding(name string, n, pad int64) {
	if c.err == nil && !padding.Fits(n, pad) {
		c.fail("%s is %d behind %d bytes: it may be an eighth of them, or 1 KiB", name, pad, n)
	}
}

// DecodeResultHeader reads what EncodeResultHeader wrote.
func (Codec) DecodeResultHeader(b []byte) (*app.ResultHeader, error) {
	c := &checker{}
	var m taskv1.ResultHeader
	c.unmarshal(b, &m)
	h := &app.ResultHeader{TaskID: c.id("task_id", m.TaskId), ExitCode: m.ExitCode, Reason: c.upper("reason", m.Reason),
		Message: c.text("message", m.Message, maxMessage), Usage: c.usage(m.Usage), Parts: c.parts(m.Parts), Padding: c.size("padding", m.Padding)}
	c.bodies(h.Parts)
	c.padding("padding", following(b, h.Parts), h.Padding)
	return h, c.err
}

// bodies: somebody will make files of their names.
func (c *checker) bodies(parts []domain.Part) {
	files := make([]string, 0, len(parts))
	for _, p := range parts {
		file, ok := strings.CutPrefix(p.Name, "output:")
		if ok {
			files = append(files, file)
		} else if p.Name != "stdout" && p.Name != "stderr" {
			c.fail("the result has a body %q: it may have stdout, stderr and output:PATH", treepath.Shown(p.Name))
		}
	}
	if err := treepath.CheckAll(files); err != nil {
		c.fail("the result's files: %v", err)
	}
}

func (c *checker) parts(ps []*taskv1.PartInfo) []domain.Part {
	if len(ps) > maxParts {
		c.fail("%d parts are named: %d may be", len(ps), maxParts)
		return nil
	}
	out, seen := make([]domain.Part, len(ps)), make(map[string]bool, len(ps))
	total := int64(0)
	for i, p := range ps {
		out[i] = domain.Part{Name: c.text("part.name", p.GetName(), maxPartName), Size: c.size("part.size", p.GetSize()), SHA256: c.hash("part.sha256", p.GetSha256())}
		if out[i].Name == "" {
			c.fail("a part has no name")
		}
		if seen[out[i].Name] {
			c.fail("two parts are named %q", out[i].Name)
		}
		seen[out[i].Name] = true
		if total += out[i].Size; total > maxSize {
			c.fail("the parts have more than %d bytes together", int64(maxSize))
			return nil
		}
	}
	return out
}
