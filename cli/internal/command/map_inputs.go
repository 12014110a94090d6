package command

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/cli/internal/nodeclient"
	"github.com/shallot-net/shallot/cli/internal/progress"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// Bounds of a job, which the node has too: here they are found before anything is sent.
const (
	maxInputs    = 100_000
	maxInputName = 255
	// smallInput is what goes into the call itself, in bytes; batchBytes and batchInputs bound a call.
	smallInput  = 128 << 10
	batchBytes  = 4 << 20
	batchInputs = 500
)

// input is one file.
type input struct {
	name, path string
	sha256     string
	size       int64
}

// mapRun is one job that is prepared and followed.
type mapRun struct {
	*app
	client *nodeclient.Client
	line   *progress.Line
	flags  *mapFlags
	module string
	inputs []input
}

// findInputs expands the patterns. Hidden files are left out unless a pattern asks for them, as in a shell.
func findInputs(globs []string) ([]input, error) {
	byName := map[string]string{}
	var out []input
	for _, glob := range globs {
		found, err := filepath.Glob(glob)
		if err != nil {
			return nil, usage("--inputs %q is no pattern: %v", glob, err)
		}
		hidden := strings.HasPrefix(filepath.Base(glob), ".")
		taken := 0
		for _, path := range found {
			name := filepath.Base(path)
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || strings.HasPrefix(name, ".") && !hidden {
				continue
			}
			taken++
			if other, ok := byName[name]; ok {
				if other == path {
					continue
				}
				return nil, usage("the inputs %s and %s would both have the result %s: rename one, or make two jobs with output folders of their own", other, path, name)
			}
			if len(name) > maxInputName || !utf8.ValidString(name) || strings.ContainsRune(name, '\\') || strings.ContainsFunc(name, unicode.IsControl) {
				return nil, usage("the input %q has a name that no result can have: it must be text without control characters and backslashes, of at most %d bytes", path, maxInputName)
			}
			byName[name] = path
			out = append(out, input{name: name, path: path})
		}
		if taken == 0 {
			return nil, usage("--inputs %q matches no file", glob)
		}
	}
	if len(out) > maxInputs {
		return nil, usage("there are %d inputs, and a job has %d at most: make several jobs", len(out), maxInputs)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out, nil
}

// hash reads all inputs: their hashes are part of what the job is.
func (m *mapRun) hash(ctx context.Context) error {
	for i := range m.inputs {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		in := &m.inputs[i]
		m.line.Count("reading inputs", uint64(i), uint64(len(m.inputs)))
		f, err := os.Open(in.path)
		if err != nil {
			return unreadable("the input "+in.path, err)
		}
		h := sha256.New()
		in.size, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return unreadable("the input "+in.path, err)
		}
		in.sha256 = hex.EncodeToString(h.Sum(nil))
	}
	return nil
}

// unreadable names a file once, as the user did.
func unreadable(what string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("cannot read %s: %w", what, err)
}

// makeOutput makes the folder, and takes away what a killed command has left unfinished there.
func (m *mapRun) makeOutput() error {
	if err := os.MkdirAll(m.flags.output, 0o755); err != nil {
		return fmt.Errorf("cannot make the output folder: %w", err)
	}
	dir, err := filepath.Abs(m.flags.output)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return fmt.Errorf("cannot find the output folder: %w", err)
	}
	m.flags.output = dir
	names := make(map[string]bool, len(m.inputs))
	for _, in := range m.inputs {
		if from, err := filepath.Abs(filepath.Dir(in.path)); err == nil {
			if from, err = filepath.EvalSymlinks(from); err == nil && from == dir {
				return usage("--output %s is where the input %s is, which its result would replace: give another folder", dir, in.path)
			}
		}
		names[in.name] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot read the output folder: %w", err)
	}
	for _, e := range entries {
		if of := temporary.FindStringSubmatch(e.Name()); of != nil && names[of[1]] && e.Type().IsRegular() {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

// temporary is how files are named that are being written.
var temporary = regexp.MustCompile(`^\.(.+?)\d+$`)

// spec is the job, without its inputs.
func (m *mapRun) spec(ctx context.Context, cmd *cobra.Command, args []string) (*taskv1.JobSpec, error) {
	env, err := pairs("--env", m.flags.env)
	if err != nil {
		return nil, err
	}
	spec := &taskv1.JobSpec{InputPath: m.flags.asFile, Total: uint32(len(m.inputs)), Parallel: m.flags.parallel, Hedge: m.flags.hedge, //nolint:gosec // maxInputs
		Name: clip(filepath.Base(args[0])+" → "+m.flags.output, 256)}
	if m.flags.parallel == 0 {
		return nil, usage("--parallel is 0: it must be at least 1")
	}
	if cmd.Flags().Changed("personas") { // else as the node is set
		if spec.Personas = m.flags.personas; spec.Personas == 0 {
			return nil, usage("--personas is 0: it must be at least 1")
		}
	}
	l := &loader{m.app, &nodeclient.Blobs{Client: m.client}, m.line}
	wasm := &taskv1.WasmPayload{Args: args[1:], Env: env}
	if wasm.Module, err = l.file(ctx, "the module", args[0]); err != nil {
		return nil, err
	}
	spec.Task = &taskv1.TaskSpec{Type: "wasm", Payload: &taskv1.TaskSpec_Wasm{Wasm: wasm}}
	return spec, m.flags.runFlags.spec(cmd, spec.Task)
}

func clip(s string, n int) string {
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// identity is what makes a job the same: its folder, program, arguments, environment, limits and inputs. How many are done at once is not
// part of it.
func (m *mapRun) identity(spec *taskv1.JobSpec, module string) (string, error) {
	task := proto.CloneOf(spec.GetTask())
	task.GetWasm().Module, task.Labels, task.Placement = nil, nil, nil
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(task)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	enc := json.NewEncoder(h)
	err = enc.Encode([]any{"map", m.flags.output, module, spec.GetInputPath(), b})
	for _, in := range m.inputs {
		if err == nil {
			err = enc.Encode([]string{in.name, in.sha256})
		}
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

// find makes the job, or finds the one that the same command has made before. One that was cancelled is over, and another takes its place.
func (m *mapRun) find(ctx context.Context, spec *taskv1.JobSpec) (*taskv1.Job, error) {
	module, err := m.moduleHash()
	if err != nil {
		return nil, err
	}
	id, err := m.identity(spec, module)
	if err != nil {
		return nil, err
	}
	m.line.Set("waiting for the node")
	for n := 0; ; n++ {
		job, err := m.client.MakeJob(ctx, fmt.Sprintf("map:%s:%d", id, n), spec)
		if err != nil {
			return nil, err
		}
		over := nodeclient.JobOver(job.GetState())
		if job.GetState() == "CANCELLED" || m.flags.again && over {
			continue // there are as many as the user has made
		}
		if over && job.GetState() == "FAILED" {
			m.say("this job has ended before: --again does all its inputs anew")
		}
		return job, nil
	}
}

func (m *mapRun) moduleHash() (string, error) {
	f, err := os.Open(m.module)
	if err != nil {
		return "", unreadable(m.module, err)
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// send gives the job the inputs that it has not got yet. It had them in order.
func (m *mapRun) send(ctx context.Context, job *taskv1.Job) (*taskv1.Job, error) {
	for job.GetState() == "OPEN" {
		from := int(job.GetCounts().GetAdded())
		var batch []*taskv1.NewShard
		bytes := int64(0)
		for i := from; i < len(m.inputs) && len(batch) < batchInputs && bytes < batchBytes; i++ {
			m.line.Count("sending inputs", uint64(i), uint64(len(m.inputs)))
			blob, err := m.blob(ctx, &m.inputs[i])
			if err != nil {
				return job, fmt.Errorf("cannot send the input %s: %w", m.inputs[i].path, err)
			}
			bytes += int64(len(blob.GetInline()))
			batch = append(batch, &taskv1.NewShard{Index: uint32(i), Name: m.inputs[i].name, Content: blob}) //nolint:gosec // maxInputs
		}
		next, err := m.client.AddInputs(ctx, job.GetId(), batch)
		if err != nil {
			return job, err
		}
		if job = next; len(batch) == 0 && job.GetState() == "OPEN" {
			return job, fmt.Errorf("job %s has all its inputs and does not start", job.GetId())
		}
	}
	m.line.Set("waiting for the node")
	return job, nil
}

func (m *mapRun) blob(ctx context.Context, in *input) (*taskv1.Blob, error) {
	if in.size > smallInput {
		return m.client.SendFile(ctx, func() (io.ReadCloser, error) { return os.Open(in.path) }, in.sha256, func(uint64) {})
	}
	f, err := os.Open(in.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(f, smallInput+1)); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b.Bytes()); hex.EncodeToString(sum[:]) != in.sha256 {
		return nil, nodeclient.ErrChanged
	}
	return &taskv1.Blob{Source: &taskv1.Blob_Inline{Inline: b.Bytes()}}, nil
}
