package rest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/shallot-net/shallot/kit/fault"
	nodev1 "github.com/shallot-net/shallot/proto/shallot/node/v1"
)

// chunkSize is how much of a request's body goes into one message, in bytes.
const chunkSize = 256 << 10

// result: GET /v1/tasks/{task_id}/result?body=stdout|stderr|output:PATH&offset=N
func (s *server) result(w http.ResponseWriter, r *http.Request, path map[string]string) {
	offset, err := offsetOf(r)
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stream, err := s.node.GetResult(ctx, &nodev1.GetResultRequest{TaskId: path["task_id"], Body: r.URL.Query().Get("body"), Offset: offset})
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	s.download(w, r, offset, func() (uint64, []byte, error) {
		m, err := stream.Recv()
		return m.GetSize(), m.GetData(), err
	})
}

// getContent: GET /v1/content/{cid}?path=PATH&offset=N&from_peers=PEER
func (s *server) getContent(w http.ResponseWriter, r *http.Request, path map[string]string) {
	offset, err := offsetOf(r)
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	query := r.URL.Query()
	stream, err := s.node.GetContent(ctx, &nodev1.GetContentRequest{Cid: path["cid"], Path: query.Get("path"), Offset: offset, FromPeers: query["from_peers"]})
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	s.download(w, r, offset, func() (uint64, []byte, error) {
		m, err := stream.Recv()
		return m.GetSize(), m.GetData(), err
	})
}

func offsetOf(r *http.Request) (uint64, error) {
	v := r.URL.Query().Get("offset")
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		return 0, fault.InvalidArgument("OFFSET", "offset is %q: give a number of bytes", printable(v))
	}
	return n, nil
}

// download writes a body whose first message is its size. Bytes of strangers are never shown in place by a browser.
func (s *server) download(w http.ResponseWriter, r *http.Request, offset uint64, next func() (uint64, []byte, error)) {
	size, data, err := next()
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", "attachment")
	h.Set("Cache-Control", "no-store")
	if size >= offset {
		h.Set("Content-Length", strconv.FormatUint(size-offset, 10))
	}
	for err == nil {
		if _, werr := w.Write(data); werr != nil {
			return
		}
		_, data, err = next()
	}
	if !errors.Is(err, io.EOF) {
		s.Log.Warn("a download ended early", "error", err.Error())
		panic(http.ErrAbortHandler) // the status is out: only a broken connection tells the client that bytes are missing
	}
}

// logs: GET /v1/tasks/{task_id}/logs?follow=true&offset=N
func (s *server) logs(w http.ResponseWriter, r *http.Request, path map[string]string) {
	offset, err := offsetOf(r)
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	follow := r.URL.Query().Get("follow")
	if follow != "" && follow != "true" && follow != "false" {
		s.problems.write(w, r, fault.InvalidArgument("FOLLOW", "follow is %q: give true or false", printable(follow)))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stream, err := s.node.GetLogs(ctx, &nodev1.GetLogsRequest{TaskId: path["task_id"], Follow: follow == "true", Offset: offset})
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	flush := http.NewResponseController(w)
	begun := false
	begin := func() {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusOK)
		}
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			begin()
			return
		case err != nil && !begun:
			s.problems.write(w, r, err)
			return
		case err != nil:
			panic(http.ErrAbortHandler)
		}
		begin()
		if _, err := w.Write(m.GetData()); err != nil {
			return
		}
		_ = flush.Flush()
	}
}

// upload: POST /v1/uploads, the bytes as the body.
func (s *server) upload(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stream, err := s.node.Upload(ctx)
	if err == nil {
		err = chunks(r.Body, func(b []byte) error { return stream.Send(&nodev1.UploadRequest{Data: b}) })
	}
	if err != nil && !errors.Is(err, io.EOF) { // EOF: the service has ended the call, and says why below
		s.problems.write(w, r, tooLarge(err))
		return
	}
	m, err := stream.CloseAndRecv()
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		UploadID string `json:"upload_id"`
		Size     uint64 `json:"size,string"`
		SHA256   string `json:"sha256"`
	}{m.GetUploadId(), m.GetSize(), m.GetSha256()})
}

// putContent: POST /v1/content, the bytes as the body.
func (s *server) putContent(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stream, err := s.node.PutContent(ctx)
	if err == nil {
		err = chunks(r.Body, func(b []byte) error { return stream.Send(&nodev1.PutContentRequest{Data: b}) })
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.problems.write(w, r, tooLarge(err))
		return
	}
	m, err := stream.CloseAndRecv()
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		CID  string `json:"cid"`
		Size uint64 `json:"size,string"`
	}{m.GetCid(), m.GetSize()})
}

// chunks sends a body in pieces until it ends. io.EOF from send means that the far side has ended the call.
func chunks(body io.Reader, send func([]byte) error) error {
	b := make([]byte, chunkSize)
	for {
		n, err := io.ReadFull(body, b)
		if n > 0 {
			if serr := send(b[:n]); serr != nil {
				return serr
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func tooLarge(err error) error {
	if over, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fault.ResourceExhausted("BODY_TOO_LARGE", "the body is larger than %d bytes", over.Limit)
	}
	return err
}
