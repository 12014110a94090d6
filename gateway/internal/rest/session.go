package rest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shallot-net/shallot/gateway/internal/access"
	"github.com/shallot-net/shallot/kit/fault"
)

// MetricSessions counts sessions of browsers by what became of a code, and those that were ended.
const MetricSessions = "shallot_gateway_sessions_total"

func newSessions() *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: MetricSessions,
		Help: "Sessions of browsers: begun, ended by their users, and codes that were refused because they were wrong, expired or used, or came too often (limited)."}, []string{"result"})
	for _, r := range []string{"begun", "ended", "wrong", "expired", "used", "limited"} {
		c.WithLabelValues(r)
	}
	return c
}

// results are what a refused code is counted as.
var results = map[string]string{"CODE_WRONG": "wrong", "CODE_EXPIRED": "expired", "CODE_USED": "used", "CODES_TOO_MANY": "limited", "SESSIONS_TOO_MANY": "limited"}

// maxSmall bounds the bodies of the gateway's own calls, in bytes.
const maxSmall = 8 << 10

// readSmall reads a small JSON body. It may be empty where the call has nothing that must be said.
func readSmall(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSmall))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil && d.More() {
		err = errors.New("there is more after it")
	}
	if over, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fault.ResourceExhausted("BODY_TOO_LARGE", "the body is larger than %d bytes", over.Limit)
	}
	if err != nil { // what it was is not said: it may be a secret in the wrong place
		return fault.InvalidArgument("BODY_INVALID", "the body is not the JSON object that %s takes: /api shows it", r.Method+" "+printable(r.URL.Path))
	}
	return nil
}

// sessionCode: POST /v1/session:code makes a code, for whoever has a token.
func (s *server) sessionCode(w http.ResponseWriter, r *http.Request) {
	code, lifetime, err := s.Guard.Keys.Code(callerOf(r))
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Code      string `json:"code"`
		ExpiresIn string `json:"expires_in"`
	}{code, lifetime.String()})
}

// beginSession: POST /v1/session turns a code into a cookie.
func (s *server) beginSession(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Code string `json:"code"`
	}
	err := readSmall(w, r, &body)
	if err == nil && body.Code == "" {
		err = fault.InvalidArgument("CODE_MISSING", "give {\"code\": …}, as `shallot dashboard` prints it")
	}
	if err != nil {
		s.problems.write(w, r, err)
		return
	}
	session, word, err := s.Guard.Keys.Begin(body.Code)
	if err != nil {
		f := fault.From(err)
		if result, ok := results[f.Reason]; ok {
			s.sessions.WithLabelValues(result).Inc()
		}
		if f.Reason == "CODES_TOO_MANY" {
			w.Header().Set("Retry-After", "5")
		}
		s.problems.write(w, r, err)
		return
	}
	s.sessions.WithLabelValues("begun").Inc()
	s.Guard.Keys.SetCookie(w, r, session, word)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// getSession: GET /v1/session says until when the caller may ask, and which nodes there are beside this one.
func (s *server) getSession(w http.ResponseWriter, r *http.Request) {
	c := callerOf(r)
	var expires *time.Time
	if c.Session != "" {
		expires = &c.Until
	}
	writeJSON(w, http.StatusOK, struct {
		ExpiresAt *time.Time `json:"expires_at"` // null for a token
		Token     string     `json:"token"`
		Nodes     []Sibling  `json:"nodes"`
	}{expires, c.Token, s.Siblings.near(r.Host, r.Context(), s.node)})
}

// endSession: DELETE /v1/session logs out.
func (s *server) endSession(w http.ResponseWriter, r *http.Request) {
	if c := callerOf(r); c.Session != "" {
		if err := s.Guard.Keys.End(c); err != nil {
			s.problems.write(w, r, err)
			return
		}
		s.sessions.WithLabelValues("ended").Inc()
	}
	s.Guard.Keys.SetCookie(w, r, nil, "")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

type callerKey struct{}

// callerOf is who asks, on paths that are not open to everybody.
func callerOf(r *http.Request) *access.Caller {
	c, _ := r.Context().Value(callerKey{}).(*access.Caller)
	return c
}
