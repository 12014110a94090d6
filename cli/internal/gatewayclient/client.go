// Package gatewayclient asks the gateway of a node what only the gateway knows: codes for browsers, and tokens. All else is asked of node.
package gatewayclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shallot-net/shallot/kit/fault"
)

const (
	timeout   = 10 * time.Second
	maxAnswer = 4 << 20 // bytes
	maxToken  = 4 << 10
)

// Client calls one gateway. The zero value is not usable.
type Client struct {
	// URL is where it is, without a slash at its end.
	URL   string
	token string
	http  http.Client
}

// New takes a gateway's URL and the reader of its token, which is one word.
func New(address string, token io.Reader) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return nil, fault.InvalidArgument("GATEWAY_INVALID", "%q is no gateway: give http://HOST:PORT, or https://HOST where something in front of it speaks TLS", address)
	}
	word, err := io.ReadAll(io.LimitReader(token, maxToken))
	if err != nil {
		return nil, fault.FailedPrecondition("TOKEN_UNREADABLE", "cannot read the token: %v", err).Because(err)
	}
	c := &Client{URL: u.Scheme + "://" + u.Host, token: strings.TrimSpace(string(word))}
	if c.token == "" || strings.ContainsAny(c.token, " \t\r\n") {
		return nil, fault.InvalidArgument("TOKEN_INVALID", "the token is not one word: it is what the gateway's token file holds, which 'shallot node' names")
	}
	// No proxy: it would learn the token. No redirects: the token is for this gateway.
	c.http = http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// Open is New with the token from a file.
func Open(address, tokenFile string) (*Client, error) {
	f, err := os.Open(tokenFile)
	if err != nil {
		return nil, fault.FailedPrecondition("TOKEN_UNREADABLE", "cannot read the token file %s: %v", tokenFile, reason(err)).Because(err)
	}
	defer f.Close()
	return New(address, f)
}

func reason(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// Code is a code for one browser, and for how long it can be used.
func (c *Client) Code(ctx context.Context) (code string, lifetime time.Duration, err error) {
	var a struct {
		Code      string `json:"code"`
		ExpiresIn string `json:"expires_in"`
	}
	if err := c.call(ctx, http.MethodPost, "/v1/session:code", nil, &a); err != nil {
		return "", 0, err
	}
	if lifetime, err = time.ParseDuration(a.ExpiresIn); err != nil || a.Code == "" {
		return "", 0, c.foreign()
	}
	return a.Code, lifetime, nil
}

// foreign: something answers, and it is no gateway, or another release's.
func (c *Client) foreign() error {
	return fault.FailedPrecondition("GATEWAY_FOREIGN", "what answers at %s does not answer as the gateway of this release: look at 'shallot node', and restart a gateway of an older one", c.URL)
}

// problem is the body of a gateway's errors.
type problem struct {
	Reason, Message string
	Meta            map[string]string
}

// call asks once, for at most ten seconds. in is sent as JSON unless it is nil; out is what the answer is read into.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // the rest of it is in the message
		}
		return fault.Unavailable("GATEWAY_UNREACHABLE", "nobody answers at %s: %v; 'shallot doctor' says more", c.URL, err).Because(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fault.Unavailable("GATEWAY_UNREACHABLE", "the answer of %s broke off: %v", c.URL, err).Because(err)
	}
	if resp.StatusCode != http.StatusOK {
		return c.refused(resp.StatusCode, b)
	}
	if len(b) > maxAnswer || json.Unmarshal(b, out) != nil {
		return c.foreign()
	}
	return nil
}

func (c *Client) refused(status int, body []byte) error {
	var p problem
	if json.Unmarshal(body, &p) != nil || p.Reason == "" || p.Reason == "PATH_NOT_FOUND" {
		return c.foreign()
	}
	code := map[int]codes.Code{http.StatusBadRequest: codes.InvalidArgument, http.StatusUnauthorized: codes.Unauthenticated, http.StatusForbidden: codes.PermissionDenied,
		http.StatusNotFound: codes.NotFound, http.StatusConflict: codes.AlreadyExists, http.StatusTooManyRequests: codes.ResourceExhausted, http.StatusServiceUnavailable: codes.Unavailable}[status]
	if code == codes.OK {
		code = codes.Unknown
	}
	return fault.New(code, p.Reason, "%s", p.Message)
}
