package gatewayclient

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Token is one that the gateway takes.
type Token struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created_at"`
}

// Tokens are those that the gateway takes, the one in its token file first.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	var a struct {
		Tokens []Token `json:"tokens"`
	}
	err := c.call(ctx, http.MethodGet, "/v1/tokens", nil, &a)
	return a.Tokens, err
}

// AddToken makes a token and returns it. Nobody can say it a second time.
func (c *Client) AddToken(ctx context.Context, name string) (string, error) {
	var a struct {
		Token string `json:"token"`
	}
	err := c.call(ctx, http.MethodPost, "/v1/tokens", map[string]string{"name": name}, &a)
	if err == nil && a.Token == "" {
		err = c.foreign()
	}
	return a.Token, err
}

// RevokeToken takes a token back.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	var a struct{}
	return c.call(ctx, http.MethodPost, "/v1/tokens/"+url.PathEscape(name)+":revoke", nil, &a)
}
