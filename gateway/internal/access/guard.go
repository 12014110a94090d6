package access

import (
	"net/http"
	"net/url"
	"slices"
)

// Denial is why a request is not answered.
type Denial struct {
	Status          int
	Reason, Message string
}

// Need is what a request has to show.
type Need int

// Needs, from the least to the most.
const (
	Nothing Need = iota // health, static pages
	Enter               // logging in: nothing, but where a browser asks, it must be by a page of this gateway
	Login               // a token, or the cookie of a session
	Bearer              // a token in its header: a session must not make further ones
)

// Guard checks requests before anything reads them.
type Guard struct {
	Keys  *Keyring
	Hosts Hosts
}

// Check returns who asks, nil for whoever needs to show nothing, or why the request is not answered. A session is looked at more closely than a
// token: a browser sends its cookie along with whatever any page of this machine has it ask, a program gives its token on purpose.
func (g Guard) Check(r *http.Request, need Need) (*Caller, *Denial) {
	if d := g.origin(r); d != nil || need == Nothing {
		return nil, d
	}
	if need == Enter {
		if browser := len(r.Header.Values("Origin"))+len(r.Header.Values("Sec-Fetch-Site")) > 0; browser && !ownPage(r) {
			return nil, foreignPage
		}
		return nil, nil
	}
	if header := r.Header.Values("Authorization"); len(header) > 0 {
		c, ok := g.Keys.token(header)
		if !ok {
			return nil, &Denial{http.StatusUnauthorized, "TOKEN_WRONG", "this is no token of this gateway, or one that was revoked: the right one is in the file that `shallot node` names as token_file"}
		}
		return c, nil
	}
	if need == Bearer {
		return nil, tokenMissing
	}
	return g.session(r)
}

var tokenMissing = &Denial{http.StatusUnauthorized, "TOKEN_MISSING", "send the header `Authorization: Bearer TOKEN`, with the token from the file that `shallot node` names as token_file; in a browser, `shallot dashboard` logs in"}

var foreignPage = &Denial{http.StatusForbidden, "ORIGIN_NOT_ALLOWED", "a session may be begun and used by pages of this gateway alone, and this request does not say, with Origin or Sec-Fetch-Site, that it is from one; a program gives a token"}

// origin refuses names that are not this gateway's, and pages of others.
func (g Guard) origin(r *http.Request) *Denial {
	if !g.Hosts.Allows(r.Host) {
		return &Denial{http.StatusForbidden, "HOST_NOT_ALLOWED", "this gateway is not known by that Host: use the address that `shallot node` shows, or allow the name with allowed_hosts"}
	}
	for _, origin := range r.Header.Values("Origin") {
		if host := hostOf(origin); host == "" || !g.Hosts.Allows(host) {
			return &Denial{http.StatusForbidden, "ORIGIN_NOT_ALLOWED", "pages of other origins may not ask this gateway"}
		}
	}
	if slices.Contains(r.Header.Values("Sec-Fetch-Site"), "cross-site") {
		return &Denial{http.StatusForbidden, "ORIGIN_NOT_ALLOWED", "pages of other sites may not ask this gateway"}
	}
	return nil
}

// session lets a request pass by its cookie.
func (g Guard) session(r *http.Request) (*Caller, *Denial) {
	c, given := g.Keys.cookie(r)
	if c == nil && given {
		return nil, &Denial{http.StatusUnauthorized, "SESSION_ENDED", "this session is over: `shallot dashboard` begins another one"}
	}
	if c == nil {
		return nil, tokenMissing
	}
	if !ownPage(r) {
		return nil, foreignPage
	}
	return c, nil
}

// ownPage tells whether a browser says that a page of this very origin asks, or, where nothing is changed, the person at it. Pages of other ports
// of this machine are of the same site, so that SameSite does not keep their requests from carrying the cookie.
func ownPage(r *http.Request) bool {
	origins, sites := r.Header.Values("Origin"), r.Header.Values("Sec-Fetch-Site")
	if len(origins) > 1 || len(sites) > 1 {
		return false
	}
	if len(origins) == 1 && hostOf(origins[0]) != r.Host {
		return false
	}
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	if len(sites) == 1 {
		return sites[0] == "same-origin" || safe && sites[0] == "none"
	}
	return safe || len(origins) == 1
}

// hostOf is the host and port of an origin, "" of what is none.
func hostOf(origin string) string {
	u, err := url.Parse(origin)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return ""
	}
	return u.Host
}
