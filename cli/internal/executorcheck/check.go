// Package executorcheck holds an executor against the contract shallot.executor.v1, as a provider would use it and as the world treats
// it: it is what an author of one runs against it.
package executorcheck

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/shallot-net/shallot/kit/fault"
	"github.com/shallot-net/shallot/kit/rpc"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
)

// Part is one body of a payload.
type Part struct {
	Name string
	Data []byte
}

// Config says what to check and with what. Options may be empty where the executor takes that.
type Config struct {
	Address string
	Type    string // that it must have; empty: any
	Options []byte // of a good payload
	Parts   []Part
	Slow    []byte   // options of a run that takes some seconds; nil: Options
	Bad     [][]byte // options that must be refused
	Timeout time.Duration
}

// Verdicts.
const (
	Pass    = "pass"
	Fail    = "fail"
	Skipped = "skipped"
)

// Result is what one check found.
type Result struct {
	Check   string        `json:"check"`
	Verdict string        `json:"verdict"`
	Took    time.Duration `json:"-"`
	Detail  string        `json:"detail"`
}

// skip is no failure: the check could not be made.
type skip string

func (s skip) Error() string { return string(s) }

// checker is one pass over all checks.
type checker struct {
	cfg    Config
	conn   *grpc.ClientConn
	client executorv1.ExecutorServiceClient
	about  *executorv1.DescribeResponse
	task   string   // of the first run
	first  *outcome // of it
}

// maxMessage is what gRPC takes when nobody says otherwise.
const maxMessage = 4 << 20

// Run makes the checks, one after the other, and tells each result. It is false when one failed. The error says that the checks could
// not even begin.
func Run(ctx context.Context, cfg Config, tell func(Result)) (bool, error) {
	c := &checker{cfg: cfg, task: taskID()}
	if err := c.connect(); err != nil {
		return false, err
	}
	defer func() { _ = c.conn.Close() }()
	good := true
	for _, check := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"describe", c.describe},
		{"health", c.health},
		{"validate a good payload", c.validateGood},
		{"validate bad payloads", c.validateBad},
		{"run", c.run},
		{"same task and attempt again", c.repeat},
		{"parts in chunks", c.chunks},
		{"cancel in the middle", c.cancel},
		{"connection cut in the middle", c.cut},
	} {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		r := Result{Check: check.name, Verdict: Pass}
		if c.about == nil && check.name != "describe" {
			r.Verdict, r.Detail = Skipped, "it could not be described"
			tell(r)
			continue
		}
		begin := time.Now()
		detail, err := check.do(ctx)
		r.Took = time.Since(begin)
		var s skip
		switch {
		case errors.As(err, &s):
			r.Verdict, detail = Skipped, string(s)
		case err != nil:
			r.Verdict, detail, good = Fail, words(err), false
		}
		r.Detail = short(detail)
		tell(r)
	}
	return good, nil
}

// connect makes a connection like a provider's.
func (c *checker) connect() error {
	conn, err := rpc.Dial(c.cfg.Address, rpc.ClientConfig{Service: "the executor", Plain: true, MaxMessage: maxMessage,
		Options: []grpc.DialOption{grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: math.MaxInt64})}})
	if err != nil {
		return err
	}
	c.conn, c.client = conn, executorv1.NewExecutorServiceClient(conn)
	return nil
}

// start begins a task's Start: the parts inline, or all of them to be streamed.
func (c *checker) start(taskID string, options []byte, parts []Part, streamed bool) *executorv1.Start {
	s := &executorv1.Start{TaskId: taskID, Attempt: 1, Options: options, Limits: c.limits()}
	for _, p := range parts {
		sum := sha256.Sum256(p.Data)
		m := &executorv1.Part{Name: p.Name, Size: uint64(len(p.Data)), Sha256: sum[:], Source: &executorv1.Part_Inline{Inline: p.Data}}
		if streamed || len(p.Data) > inlineMost {
			m.Source = &executorv1.Part_Streamed{Streamed: true}
		}
		s.Parts = append(s.Parts, m)
	}
	return s
}

// inlineMost is from where on a provider streams a part, in bytes.
const inlineMost = 64 << 10

func taskID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// words are an error without what gRPC says of its inner parts.
func words(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return strings.Replace(err.Error(), f.Error(), f.Message, 1)
	}
	return err.Error()
}

// short keeps foreign text within a cell.
func short(s string) string {
	const most = 240
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

func (c *checker) width() int { return int(min(max(c.about.GetConcurrency(), 1), maxWidth)) }

// maxWidth bounds the runs that are made side by side.
const maxWidth = 16
