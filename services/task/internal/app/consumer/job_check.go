package consumer

import (
	"crypto/sha256"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/treepath"
	"github.com/shallot-net/shallot/services/task/internal/app"
	"github.com/shallot-net/shallot/services/task/internal/domain"
)

// Bounds of jobs beside those of their tasks.
const (
	maxJobName    = 256
	maxShardName  = 255 // what file systems take
	maxShardBatch = 1000
	maxShardBytes = 1 << 20   // of an input inside the call
	maxJobInput   = 256 << 30 // bytes of all inputs of a job
	// jobLabels are those that a job gives its tasks.
	jobLabels = 2
)

func sum(b []byte) domain.Hash { return sha256.Sum256(b) }

func checkJob(n *app.NewJob) error {
	if n.Spec.Type != "wasm" {
		return invalid("spec.task.type", "the task's type is %q: a job runs programs, of type wasm", clip(n.Spec.Type, domain.MaxType))
	}
	if n.Total == 0 || n.Total > domain.MaxShards {
		return invalid("spec.total", "total is %d: a job has from 1 to %d shards", n.Total, domain.MaxShards)
	}
	if n.Parallel > domain.MaxParallel {
		return invalid("spec.parallel", "parallel is %d: at most %d shards are in flight", n.Parallel, domain.MaxParallel)
	}
	if n.Personas > domain.MaxPersonas {
		return invalid("spec.personas", "personas is %d: the shards of a job leave from at most %d", n.Personas, domain.MaxPersonas)
	}
	if len(n.Name) > maxJobName || !utf8.ValidString(n.Name) {
		return invalid("spec.name", "the name has %d bytes: it must be text of at most %d", len(n.Name), maxJobName)
	}
	if len(n.Spec.Labels) > maxLabels-jobLabels {
		return invalid("spec.task.labels", "there are %d labels: a job may have %d", len(n.Spec.Labels), maxLabels-jobLabels)
	}
	if n.InputPath != "" {
		if err := treepath.Check(n.InputPath); err != nil {
			return invalid("spec.input_path", "the input path %q cannot be used: it must be a relative path with slashes, and %v", treepath.Shown(n.InputPath), err)
		}
	}
	for _, p := range n.Spec.Parts {
		if p.Name == inputPart(n.InputPath) {
			return invalid("spec.task", "the task has %s already, which is where the inputs of the job go: leave it out, or say another input_path", p.Name)
		}
	}
	with := n.Spec // what each shard's task will have
	with.Parts = append(slices.Clone(n.Spec.Parts), app.PartSource{Name: inputPart(n.InputPath)})
	return checkSpec(&with)
}

// inputPart is which part of its task a shard's input is.
func inputPart(path string) string {
	if path == "" {
		return "stdin"
	}
	return app.PrefixInput + path
}

func checkShards(j *domain.Job, shards []app.NewShard) error {
	if len(shards) > maxShardBatch {
		return invalid("shards", "there are %d shards in one call: send %d at a time", len(shards), maxShardBatch)
	}
	names, indices := make(map[string]uint32, len(shards)), make(map[uint32]bool, len(shards))
	for _, n := range shards {
		if n.Index >= j.Total {
			return invalid("shards.index", "the shard %q has index %d, and the job has %d shards", clip(n.Name, maxShardName), n.Index, j.Total)
		}
		if !validName(n.Name) {
			return invalid("shards.name", "the shard %d is named %q: it must be a file name of at most %d bytes", n.Index, clip(n.Name, maxShardName), maxShardName)
		}
		if other, ok := names[n.Name]; ok || indices[n.Index] {
			return invalid("shards.name", "the shards %d and %d are both named %q, or have one index", other, n.Index, n.Name)
		}
		if len(n.Content.Inline) > maxShardBytes {
			return fault.InvalidArgument("SHARD_TOO_LARGE", "the input %s has %s: send more than %s with Upload, and name the upload", n.Name,
				domain.Bytes(int64(len(n.Content.Inline))), domain.Bytes(maxShardBytes))
		}
		names[n.Name], indices[n.Index] = n.Index, true
	}
	return nil
}

// validName tells whether a shard's result can be a file of this name, wherever it is written.
func validName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= maxShardName && utf8.ValidString(s) && !strings.ContainsAny(s, "/\\") && !strings.ContainsFunc(s, unicode.IsControl)
}
