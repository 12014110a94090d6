package rest

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/treepath"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

const (
	// maxArchives is how many archives are made at one time: each asks for results as fast as its reader takes them.
	maxArchives = 4
	shardPage   = 1000
)

// results: GET /v1/jobs/{job_id}/results is one archive of what the shards have brought that have ended by now. Nothing is held back for it: bodies go
// through as they come from the node. manifest.json is last, and only a whole archive has it.
func (s *server) results(w http.ResponseWriter, r *http.Request, path map[string]string) {
	select {
	case s.archives <- struct{}{}:
		defer func() { <-s.archives }()
	default:
		s.problems.write(w, r, fault.ResourceExhausted("ARCHIVES_TOO_MANY", "%d archives are being made, which is all that there can be at one time: wait for one", maxArchives))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	job, err := s.jobs.GetJob(ctx, &nodev1.GetJobRequest{JobId: path["job_id"]})
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	page, err := s.shards(ctx, job.GetJob().GetId(), "")
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Disposition", `attachment; filename="job-`+job.GetJob().GetId()+`.zip"`)
	h.Set("Cache-Control", "no-store")
	a := &archive{server: s, zip: zip.NewWriter(w), job: job.GetJob()}
	if err := a.write(ctx, page); err != nil {
		s.Log.Warn("an archive of results ended early", "error", err.Error())
		panic(http.ErrAbortHandler) // the status is out: only a broken connection tells the client that bytes are missing
	}
}

func (s *server) shards(ctx context.Context, job, page string) (*nodev1.ListShardsResponse, error) {
	return s.jobs.ListShards(ctx, &nodev1.ListShardsRequest{JobId: job, States: []string{"COMPLETED", "FAILED"}, PageSize: shardPage, PageToken: page})
}

// archive is one that is being written.
type archive struct {
	*server
	zip *zip.Writer
	job *taskv1.Job
	// manifest has a line of JSON for each shard: some hundred bytes of 100,000 at most.
	manifest bytes.Buffer
}

// shardView is a shard in the manifest.
type shardView struct {
	Index    uint32     `json:"index"`
	Name     string     `json:"name"`
	State    string     `json:"state"`
	TaskID   string     `json:"task_id"`
	ExitCode *int32     `json:"exit_code,omitempty"`
	Error    *errorView `json:"error,omitempty"`
	Files    []fileView `json:"files"`
	// Missing is what the archive has not, and why.
	Missing []missingView `json:"missing,omitempty"`
}

type errorView struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// fileView is a file of the archive, and what of the task's result it is: stdout, or output:PATH.
type fileView struct {
	Path string `json:"path"`
	Body string `json:"body"`
	Size uint64 `json:"size,string"`
}

type missingView struct {
	Body   string `json:"body"`
	Reason string `json:"reason"`
}

func (a *archive) write(ctx context.Context, page *nodev1.ListShardsResponse) error {
	for {
		for _, s := range page.GetShards() {
			if err := a.shard(ctx, s); err != nil {
				return err
			}
		}
		if page.GetNextPageToken() == "" || len(page.GetShards()) == 0 {
			break
		}
		var err error
		if page, err = a.shards(ctx, a.job.GetId(), page.GetNextPageToken()); err != nil {
			return err
		}
	}
	if err := a.close(); err != nil {
		return err
	}
	return a.zip.Close()
}

// close writes the manifest.
func (a *archive) close() error {
	job, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(a.job)
	if err != nil {
		return err
	}
	f, err := a.create("manifest.json", time.Time{})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, job, "  ", "  "); err != nil {
		return err
	}
	for _, part := range [][]byte{[]byte("{\n  \"job\": "), out.Bytes(), []byte(",\n  \"shards\": ["), a.manifest.Bytes(), []byte("\n  ]\n}\n")} {
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	return nil
}

func (a *archive) create(name string, at time.Time) (io.Writer, error) {
	return a.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at})
}

func (a *archive) shard(ctx context.Context, s *taskv1.Shard) error {
	v := shardView{Index: s.GetIndex(), Name: s.GetName(), State: s.GetState(), TaskID: s.GetTaskId(), ExitCode: s.ExitCode, Files: []fileView{}}
	if e := s.GetError(); e != nil {
		v.Error = &errorView{e.GetReason(), e.GetMessage()}
	}
	if err := a.files(ctx, &v); err != nil {
		return err
	}
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sep := ",\n    "
	if a.manifest.Len() == 0 {
		sep = sep[1:]
	}
	a.manifest.WriteString(sep)
	a.manifest.Write(line)
	return nil
}

// files writes what the shard's task has brought. What is not there any more, or has a name that no archive should have, is noted.
func (a *archive) files(ctx context.Context, v *shardView) error {
	resp, err := a.node.GetTask(ctx, &nodev1.GetTaskRequest{TaskId: v.TaskID})
	if reason := gone(err); reason != "" {
		v.Missing = append(v.Missing, missingView{"result", reason})
		return nil
	}
	if err != nil {
		return err
	}
	t := resp.GetTask()
	if t.GetResult() == nil {
		return nil // it failed before it said anything
	}
	bodies := []string{"stdout"}
	for _, f := range t.GetResult().GetFiles() {
		bodies = append(bodies, "output:"+f.GetPath())
	}
	at := t.GetFinishedAt().AsTime()
	for _, body := range bodies {
		name := nameOf(v.Name, body)
		if name == "" {
			v.Missing = append(v.Missing, missingView{body, "PATH_INVALID"})
			continue
		}
		size, err := a.body(ctx, t.GetId(), body, name, at)
		if err == nil {
			v.Files = append(v.Files, fileView{name, body, size})
			continue
		}
		reason := gone(err)
		if reason == "" {
			return err
		}
		v.Missing = append(v.Missing, missingView{body, reason})
	}
	return nil
}

// nameOf is where a body goes in the archive; "" where its name could lead whoever opens the archive elsewhere.
func nameOf(shard, body string) string {
	out, isFile := strings.CutPrefix(body, "output:")
	if treepath.Check(shard) != nil || strings.ContainsAny(shard, `/\`) || isFile && treepath.Check(out) != nil || strings.ContainsRune(out, '\\') { // which some take for a slash
		return ""
	}
	if isFile {
		return "shards/" + shard + "/out/" + out
	}
	return "shards/" + shard + "/stdout"
}

// gone is why something cannot be had by asking again, "" for errors that may pass.
func gone(err error) string {
	if f := fault.From(err); f != nil && (f.Code == codes.NotFound || f.Code == codes.FailedPrecondition || f.Code == codes.DataLoss) {
		return f.Reason
	}
	return ""
}

// body copies one body into the archive. An error that is gone means that nothing of it was written.
func (a *archive) body(ctx context.Context, task, body, name string, at time.Time) (size uint64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := body
	if body == "stdout" {
		asked = ""
	}
	var stream grpc.ServerStreamingClient[nodev1.GetResultResponse]
	stream, err = a.node.GetResult(ctx, &nodev1.GetResultRequest{TaskId: task, Body: asked})
	if err != nil {
		return 0, err
	}
	m, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	f, ferr := a.create(name, at)
	if ferr != nil {
		return 0, ferr
	}
	for err == nil {
		n, werr := f.Write(m.GetData())
		if werr != nil {
			return 0, werr
		}
		size += uint64(n) //nolint:gosec // it is not negative
		m, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		return 0, fault.Unavailable("RESULT_BROKEN", "a result broke off").Because(err)
	}
	return size, nil
}
