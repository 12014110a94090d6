package rest

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
	taskv1 "github.com/shallot-net/shallot/proto/shallot/task/v1"
)

// GetResult has what tests put under TASK/BODY.
func (f *fakeNode) GetResult(r *nodev1.GetResultRequest, s grpc.ServerStreamingServer[nodev1.GetResultResponse]) error {
	body := r.GetBody()
	if body == "" {
		body = "stdout"
	}
	b, ok := f.results[r.GetTaskId()+"/"+body]
	if !ok {
		return fault.FailedPrecondition("RESULT_GONE", "the result of %s was let go", r.GetTaskId())
	}
	if err := s.Send(&nodev1.GetResultResponse{Response: &nodev1.GetResultResponse_Size{Size: uint64(len(b))}}); err != nil {
		return err
	}
	for len(b) > 0 {
		if b[0] == 0 {
			return fault.Unavailable("BROKER_AWAY", "the broker went away")
		}
		n := min(len(b), 1000)
		if err := s.Send(&nodev1.GetResultResponse{Response: &nodev1.GetResultResponse_Data{Data: b[:n]}}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// ended gives the job a shard that has ended, and its task.
func (g *gateway) ended(name, state string, files ...string) {
	s := &taskv1.Shard{Index: uint32(len(g.jobs.all)), Name: name, State: state, TaskId: "task-" + strconv.Itoa(len(g.jobs.all))}
	g.jobs.all = append(g.jobs.all, s)
	t := &taskv1.Task{Id: s.GetTaskId(), State: state}
	if state == "COMPLETED" {
		s.ExitCode, t.Result = proto.Int32(0), &taskv1.ResultInfo{}
		for _, f := range files {
			t.Result.Files = append(t.Result.Files, &taskv1.OutputFile{Path: f})
		}
	} else {
		s.Error = &taskv1.TaskError{Reason: "TRAP", Message: "unreachable"}
	}
	g.node.tasks[t.GetId()] = t
}

type manifest struct {
	Job struct {
		ID, State string
		Total     int
	}
	Shards []struct {
		Index       int
		Name, State string
		TaskID      string `json:"task_id"`
		ExitCode    *int   `json:"exit_code"`
		Error       *errorView
		Files       []fileView
		Missing     []missingView
	}
}

func TestResultsOfAJobAreOneArchive(t *testing.T) {
	g := start(t)
	g.jobs.job = &taskv1.Job{Id: strings.Repeat("b", 32), State: "FAILED", Total: 2006}
	large := strings.Repeat("0123456789", 30_000)
	g.ended("one.csv", "COMPLETED", "a/b.txt", "../../escape", "back\\slash")
	g.ended("two.csv", "FAILED")
	g.ended("gone.csv", "COMPLETED")
	g.ended("waits.csv", "WAITING")
	g.ended("forgotten.csv", "COMPLETED")
	g.ended("../x", "COMPLETED")
	delete(g.node.tasks, "task-4")
	g.node.results = map[string][]byte{"task-0/stdout": []byte(large), "task-0/output:a/b.txt": []byte("an output"), "task-0/output:../../escape": []byte("out"),
		"task-0/output:back\\slash": []byte("out"), "task-5/stdout": []byte("x")}
	for i := range 2000 { // more than a page
		name := "n" + strconv.Itoa(i)
		g.ended(name, "COMPLETED")
		g.node.results[g.jobs.all[len(g.jobs.all)-1].GetTaskId()+"/stdout"] = []byte(name)
	}
	status, body, header := g.do(t, "GET", "/v1/jobs/"+g.jobs.job.GetId()+"/results", "")
	if status != 200 || header.Get("Content-Type") != "application/zip" || header.Get("Content-Disposition") != `attachment; filename="job-`+g.jobs.job.GetId()+`.zip"` {
		t.Fatalf("%d %v %.300s", status, header, body)
	}
	z, err := zip.NewReader(bytes.NewReader([]byte(body)), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	var names []string
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name], names = string(b), append(names, f.Name)
	}
	if files["shards/one.csv/stdout"] != large || files["shards/one.csv/out/a/b.txt"] != "an output" || files["shards/n1999/stdout"] != "n1999" || len(files) != 2003 ||
		slices.ContainsFunc(names, func(n string) bool { return strings.ContainsAny(n, "\\") || strings.Contains(n, "..") }) {
		t.Errorf("%d files: %.300v", len(files), names)
	}
	var m manifest
	if err := json.Unmarshal([]byte(files["manifest.json"]), &m); err != nil {
		t.Fatalf("%v in %.500s", err, files["manifest.json"])
	}
	if m.Job.ID != g.jobs.job.GetId() || m.Job.State != "FAILED" || m.Job.Total != 2006 || len(m.Shards) != 2005 || names[len(names)-1] != "manifest.json" {
		t.Errorf("%+v, %d shards", m.Job, len(m.Shards))
	}
	one, two := m.Shards[0], m.Shards[1]
	if len(one.Files) != 2 || one.Files[0] != (fileView{"shards/one.csv/stdout", "stdout", 300_000}) || *one.ExitCode != 0 || len(one.Missing) != 2 || one.Missing[0].Reason != "PATH_INVALID" ||
		one.TaskID != "task-0" {
		t.Errorf("%+v", one)
	}
	if two.State != "FAILED" || two.Error == nil || two.Error.Reason != "TRAP" || len(two.Files) != 0 || len(two.Missing) != 0 {
		t.Errorf("%+v", two)
	}
	for i, reason := range map[int]string{2: "RESULT_GONE", 3: "TASK_NOT_FOUND", 4: "PATH_INVALID"} {
		if s := m.Shards[i]; len(s.Files) != 0 || len(s.Missing) != 1 || s.Missing[0].Reason != reason {
			t.Errorf("%+v", s)
		}
	}
}

// An archive of which something is missing that may come again is no archive.
func TestArchivesBreakOff(t *testing.T) {
	g := start(t)
	g.jobs.job = &taskv1.Job{Id: strings.Repeat("b", 32), State: "COMPLETED"}
	g.ended("a", "COMPLETED")
	g.node.results = map[string][]byte{"task-0/stdout": append(bytes.Repeat([]byte("x"), 1000), 0)}
	r, err := http.NewRequestWithContext(t.Context(), "GET", g.URL+"/v1/jobs/"+g.jobs.job.GetId()+"/results", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.token)
	resp, err := http.DefaultClient.Do(r)
	if err == nil {
		defer resp.Body.Close()
		var b []byte
		if b, err = io.ReadAll(resp.Body); err == nil {
			t.Errorf("%d, whole, with %d bytes", resp.StatusCode, len(b))
		}
	}
	if status, body, _ := g.do(t, "GET", "/v1/jobs/none/results", ""); status != 404 || !strings.Contains(body, "JOB_NOT_FOUND") {
		t.Errorf("%d %s", status, body)
	}
}
